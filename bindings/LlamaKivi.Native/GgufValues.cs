using System.Runtime.CompilerServices;

namespace LlamaKivi.Native;

/// <summary>Reads metadata values, whose bytes may be unaligned in the file.</summary>
internal static unsafe class GgufValues
{
    public static object? Scalar(lk_value_type type, void* data) => type switch
    {
        lk_value_type.LK_VALUE_UINT8 => *(byte*)data,
        lk_value_type.LK_VALUE_INT8 => *(sbyte*)data,
        lk_value_type.LK_VALUE_UINT16 => Unsafe.ReadUnaligned<ushort>(data),
        lk_value_type.LK_VALUE_INT16 => Unsafe.ReadUnaligned<short>(data),
        lk_value_type.LK_VALUE_UINT32 => Unsafe.ReadUnaligned<uint>(data),
        lk_value_type.LK_VALUE_INT32 => Unsafe.ReadUnaligned<int>(data),
        lk_value_type.LK_VALUE_FLOAT32 => Unsafe.ReadUnaligned<float>(data),
        lk_value_type.LK_VALUE_BOOL => *(byte*)data != 0,
        lk_value_type.LK_VALUE_UINT64 => Unsafe.ReadUnaligned<ulong>(data),
        lk_value_type.LK_VALUE_INT64 => Unsafe.ReadUnaligned<long>(data),
        lk_value_type.LK_VALUE_FLOAT64 => Unsafe.ReadUnaligned<double>(data),
        _ => null,
    };

    public static long? Integer(lk_value_type type, void* data) => Scalar(type, data) switch
    {
        byte value => value,
        sbyte value => value,
        ushort value => value,
        short value => value,
        uint value => value,
        int value => value,
        long value => value,
        ulong value when value <= long.MaxValue => (long)value,
        _ => null,
    };

    public static double? Number(lk_value_type type, void* data) => Scalar(type, data) switch
    {
        float value => value,
        double value => value,
        ulong value => value,
        _ => Integer(type, data),
    };

    public static bool? Truth(lk_value_type type, void* data) => Scalar(type, data) is bool value ? value : Integer(type, data) switch
    {
        0 => false,
        1 => true,
        _ => null,
    };

    public static long[]? Integers(in lk_gguf_entry entry) => Array(entry) switch
    {
        byte[] values => System.Array.ConvertAll(values, value => (long)value),
        sbyte[] values => System.Array.ConvertAll(values, value => (long)value),
        ushort[] values => System.Array.ConvertAll(values, value => (long)value),
        short[] values => System.Array.ConvertAll(values, value => (long)value),
        uint[] values => System.Array.ConvertAll(values, value => (long)value),
        int[] values => System.Array.ConvertAll(values, value => (long)value),
        long[] values => values,
        ulong[] values when System.Array.TrueForAll(values, value => value <= long.MaxValue) => System.Array.ConvertAll(values, value => (long)value),
        _ => null,
    };

    public static float[]? Floats(in lk_gguf_entry entry) => Array(entry) switch
    {
        float[] values => values,
        double[] values => System.Array.ConvertAll(values, value => (float)value),
        _ => Integers(entry) is { } integers ? System.Array.ConvertAll(integers, value => (float)value) : null,
    };

    /// <summary>An array of numbers or bools; null for any other entry.</summary>
    public static Array? Array(in lk_gguf_entry entry) => entry.type != lk_value_type.LK_VALUE_ARRAY ? null : entry.element_type switch
    {
        lk_value_type.LK_VALUE_UINT8 => Copy<byte>(entry),
        lk_value_type.LK_VALUE_INT8 => Copy<sbyte>(entry),
        lk_value_type.LK_VALUE_UINT16 => Copy<ushort>(entry),
        lk_value_type.LK_VALUE_INT16 => Copy<short>(entry),
        lk_value_type.LK_VALUE_UINT32 => Copy<uint>(entry),
        lk_value_type.LK_VALUE_INT32 => Copy<int>(entry),
        lk_value_type.LK_VALUE_FLOAT32 => Copy<float>(entry),
        // Converted, not copied: a bool must not hold a byte other than 0 or 1.
        lk_value_type.LK_VALUE_BOOL => System.Array.ConvertAll(Copy<byte>(entry), value => value != 0),
        lk_value_type.LK_VALUE_UINT64 => Copy<ulong>(entry),
        lk_value_type.LK_VALUE_INT64 => Copy<long>(entry),
        lk_value_type.LK_VALUE_FLOAT64 => Copy<double>(entry),
        _ => null,
    };

    private static T[] Copy<T>(in lk_gguf_entry entry)
        where T : unmanaged
    {
        var array = new T[checked((int)entry.count)];
        fixed (T* target = array)
        {
            Buffer.MemoryCopy(entry.data, target, array.LongLength * sizeof(T), array.LongLength * sizeof(T));
        }

        return array;
    }
}
