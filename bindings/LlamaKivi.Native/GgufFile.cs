using System.Runtime.InteropServices.Marshalling;
using System.Text;

namespace LlamaKivi.Native;

/// <summary>A GGUF file: metadata as managed values, and the list of tensors. Thread-safe.</summary>
public sealed unsafe class GgufFile : IDisposable
{
    private readonly lk_gguf_info _info;
    private IReadOnlyList<GgufEntry>? _entries;
    private IReadOnlyList<GgufTensor>? _tensors;

    internal GgufFile(SafeGgufHandle handle, string path)
    {
        Handle = handle;
        Path = path;
        using var lease = new HandleLease(handle);
        lk_gguf_info info;
        NativeStatus.Check(NativeMethods.lk_gguf_describe(handle.Pointer, &info));
        _info = info;
    }

    internal SafeGgufHandle Handle { get; }

    /// <summary>Path of the file, as given.</summary>
    public string Path { get; }

    /// <summary>GGUF version, 2 or 3.</summary>
    public int Version => (int)_info.version;

    /// <summary>Alignment of the tensors in bytes.</summary>
    public int Alignment => (int)_info.alignment;

    /// <summary>Size of the file in bytes.</summary>
    public long FileSize => (long)_info.file_size;

    /// <summary>Bytes from the start of the file to the data section.</summary>
    public long DataOffset => (long)_info.data_offset;

    /// <summary>All metadata entries, in file order.</summary>
    public IReadOnlyList<GgufEntry> Entries => _entries ??= ReadEntries();

    /// <summary>All tensors, in file order.</summary>
    public IReadOnlyList<GgufTensor> Tensors => _tensors ??= ReadTensors();

    /// <summary>Maps and validates a file.</summary>
    /// <exception cref="ModelLoadException">The file cannot be read or is not valid GGUF.</exception>
    public static GgufFile Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        byte* utf8 = Utf8StringMarshaller.ConvertToUnmanaged(path);
        try
        {
            lk_gguf* gguf = null;
            NativeStatus.Check(NativeMethods.lk_gguf_open(utf8, &gguf));
            var handle = new SafeGgufHandle(gguf);
            try
            {
                return new GgufFile(handle, path);
            }
            catch
            {
                handle.Dispose();
                throw;
            }
        }
        finally
        {
            Utf8StringMarshaller.Free(utf8);
        }
    }

    /// <summary>Whether the file has an entry with this key.</summary>
    public bool Contains(string key) => TryFind(key, out _);

    /// <summary>The value of an entry: a boxed number or bool, a string, a string[], or an array of numbers or bools; null if absent.</summary>
    public object? GetValue(string key)
    {
        using var lease = new HandleLease(Handle);
        if (!TryFind(key, out lk_gguf_entry entry))
        {
            return null;
        }

        return entry.type switch
        {
            lk_value_type.LK_VALUE_STRING => Text((byte*)entry.data, entry.count),
            lk_value_type.LK_VALUE_ARRAY => GgufValues.Array(entry) ?? (object)ReadStrings(key, entry.count),
            _ => GgufValues.Scalar(entry.type, entry.data),
        };
    }

    /// <summary>A string entry; null if absent or of another type.</summary>
    public string? GetString(string key)
    {
        using var lease = new HandleLease(Handle);
        return TryFind(key, out lk_gguf_entry entry) && entry.type == lk_value_type.LK_VALUE_STRING
            ? Text((byte*)entry.data, entry.count)
            : null;
    }

    /// <summary>An array of strings; null if absent or of another type.</summary>
    public string[]? GetStrings(string key)
    {
        using var lease = new HandleLease(Handle);
        return TryFind(key, out lk_gguf_entry entry)
            && entry.type == lk_value_type.LK_VALUE_ARRAY && entry.element_type == lk_value_type.LK_VALUE_STRING
                ? ReadStrings(key, entry.count)
                : null;
    }

    /// <summary>An integer entry of any width; null if absent, of another type, or beyond 63 bits.</summary>
    public long? GetInteger(string key)
    {
        using var lease = new HandleLease(Handle);
        return TryFind(key, out lk_gguf_entry entry) ? GgufValues.Integer(entry.type, entry.data) : null;
    }

    /// <summary>A floating-point or integer entry; null if absent or of another type.</summary>
    public double? GetNumber(string key)
    {
        using var lease = new HandleLease(Handle);
        return TryFind(key, out lk_gguf_entry entry) ? GgufValues.Number(entry.type, entry.data) : null;
    }

    /// <summary>A bool entry, or an integer 0 or 1; null if absent, of another type, or any other number.</summary>
    public bool? GetBool(string key)
    {
        using var lease = new HandleLease(Handle);
        return TryFind(key, out lk_gguf_entry entry) ? GgufValues.Truth(entry.type, entry.data) : null;
    }

    /// <summary>An array of integers of any width; null if absent, of another type, or with a number beyond 63 bits.</summary>
    public long[]? GetIntegers(string key)
    {
        using var lease = new HandleLease(Handle);
        return TryFind(key, out lk_gguf_entry entry) ? GgufValues.Integers(entry) : null;
    }

    /// <summary>An array of floating-point numbers or integers, as 32-bit floats; null if absent or of another type.</summary>
    public float[]? GetFloats(string key)
    {
        using var lease = new HandleLease(Handle);
        return TryFind(key, out lk_gguf_entry entry) ? GgufValues.Floats(entry) : null;
    }

    /// <summary>An array of numbers or bools with element type <typeparamref name="T"/>; null if absent or of another type.</summary>
    public T[]? GetArray<T>(string key)
        where T : unmanaged
    {
        using var lease = new HandleLease(Handle);
        return TryFind(key, out lk_gguf_entry entry) ? GgufValues.Array(entry) as T[] : null;
    }

    /// <inheritdoc/>
    public void Dispose() => Handle.Dispose();

    private bool TryFind(string key, out lk_gguf_entry entry)
    {
        ArgumentNullException.ThrowIfNull(key);
        using var lease = new HandleLease(Handle);
        byte* utf8 = Utf8StringMarshaller.ConvertToUnmanaged(key);
        try
        {
            int found = 0;
            fixed (lk_gguf_entry* pointer = &entry)
            {
                *pointer = default;
                NativeStatus.Check(NativeMethods.lk_gguf_find(Handle.Pointer, utf8, pointer, &found));
            }

            return found != 0;
        }
        finally
        {
            Utf8StringMarshaller.Free(utf8);
        }
    }

    private GgufEntry[] ReadEntries()
    {
        using var lease = new HandleLease(Handle);
        var entries = new GgufEntry[checked((int)_info.n_entries)];
        for (int i = 0; i < entries.Length; i++)
        {
            lk_gguf_entry entry;
            NativeStatus.Check(NativeMethods.lk_gguf_entry_at(Handle.Pointer, (ulong)i, &entry));
            entries[i] = new GgufEntry(NativeStatus.Text(entry.key), (GgufValueType)entry.type, (GgufValueType)entry.element_type, (long)entry.count);
        }

        return entries;
    }

    private GgufTensor[] ReadTensors()
    {
        using var lease = new HandleLease(Handle);
        var tensors = new GgufTensor[checked((int)_info.n_tensors)];
        for (int i = 0; i < tensors.Length; i++)
        {
            lk_gguf_tensor tensor;
            NativeStatus.Check(NativeMethods.lk_gguf_tensor_at(Handle.Pointer, (ulong)i, &tensor));
            var shape = new long[Math.Min(tensor.n_dims, 4)];
            for (int d = 0; d < shape.Length; d++)
            {
                shape[d] = (long)tensor.shape[d];
            }

            tensors[i] = new GgufTensor(
                NativeStatus.Text(tensor.name),
                tensor.type_name is null ? null : NativeStatus.Text(tensor.type_name),
                (int)tensor.type,
                shape,
                (long)tensor.offset,
                (long)tensor.size);
        }

        return tensors;
    }

    private string[] ReadStrings(string key, ulong count)
    {
        byte* utf8 = Utf8StringMarshaller.ConvertToUnmanaged(key);
        try
        {
            var strings = new string[checked((int)count)];
            for (int i = 0; i < strings.Length; i++)
            {
                byte* text;
                ulong length;
                NativeStatus.Check(NativeMethods.lk_gguf_string(Handle.Pointer, utf8, (ulong)i, &text, &length));
                strings[i] = Text(text, length);
            }

            return strings;
        }
        finally
        {
            Utf8StringMarshaller.Free(utf8);
        }
    }

    private static string Text(byte* utf8, ulong length) => Encoding.UTF8.GetString(new ReadOnlySpan<byte>(utf8, checked((int)length)));
}
