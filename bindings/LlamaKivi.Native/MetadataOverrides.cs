using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.InteropServices.Marshalling;

namespace LlamaKivi.Native;

/// <summary>Metadata overrides in native memory, until disposed.</summary>
internal sealed unsafe class MetadataOverrides : IDisposable
{
    private readonly List<nint> _texts = [];

    public MetadataOverrides(IReadOnlyList<KeyValuePair<string, object>> values)
    {
        Pointer = (lk_metadata_override*)NativeMemory.AllocZeroed((nuint)values.Count, (nuint)sizeof(lk_metadata_override));
        foreach ((string key, object value) in values)
        {
            lk_metadata_override* native = &Pointer[Count++];
            native->key = Text(key);
            switch (value)
            {
                case bool truth:
                    (native->type, native->integer) = (lk_value_type.LK_VALUE_BOOL, truth ? 1 : 0);
                    break;
                case string text:
                    native->type = lk_value_type.LK_VALUE_STRING;
                    native->text = Text(text);
                    break;
                case float or double:
                    (native->type, native->real) = (lk_value_type.LK_VALUE_FLOAT64, Convert.ToDouble(value, CultureInfo.InvariantCulture));
                    break;
                default:
                    (native->type, native->integer) = (lk_value_type.LK_VALUE_INT64, Convert.ToInt64(value, CultureInfo.InvariantCulture));
                    break;
            }
        }
    }

    public int Count { get; }

    public lk_metadata_override* Pointer { get; }

    public void Dispose()
    {
        foreach (nint text in _texts)
        {
            Utf8StringMarshaller.Free((byte*)text);
        }

        _texts.Clear();
        NativeMemory.Free(Pointer);
    }

    private byte* Text(string text)
    {
        byte* utf8 = Utf8StringMarshaller.ConvertToUnmanaged(text);
        _texts.Add((nint)utf8);
        return utf8;
    }
}
