namespace LlamaKivi.Native;

/// <summary>A metadata entry, without its value.</summary>
/// <param name="Key">The key, such as "llama.block_count".</param>
/// <param name="Type">Type of the value.</param>
/// <param name="ElementType">Arrays: type of the elements. Otherwise equal to <paramref name="Type"/>.</param>
/// <param name="Count">Scalars: 1. Arrays: elements. Strings: bytes of UTF-8.</param>
public sealed record GgufEntry(string Key, GgufValueType Type, GgufValueType ElementType, long Count);

/// <summary>A tensor as declared in the file.</summary>
/// <param name="Name">The tensor's name, such as "blk.0.attn_q.weight".</param>
/// <param name="TypeName">"Q4_K", "F32", ...; null if the engine does not know the type.</param>
/// <param name="TypeNumber">The ggml type number.</param>
/// <param name="Shape">Elements of the 1 to 4 declared dimensions, innermost first.</param>
/// <param name="Offset">Bytes from the start of the data section.</param>
/// <param name="Size">Bytes; 0 if the type is unknown.</param>
public sealed record GgufTensor(string Name, string? TypeName, int TypeNumber, IReadOnlyList<long> Shape, long Offset, long Size);
