namespace LlamaKivi.Native;

/// <summary>A metadata entry, without its value.</summary>
/// <param name="Key">The key, such as "llama.block_count".</param>
/// <param name="Type">The value's type.</param>
/// <param name="ElementType">Arrays: the elements' type; otherwise equal to <paramref name="Type"/>.</param>
/// <param name="Count">Scalars: 1. Arrays: elements. Strings: bytes of UTF-8.</param>
public sealed record GgufEntry(string Key, GgufValueType Type, GgufValueType ElementType, long Count);

/// <summary>A tensor as the file declares it.</summary>
/// <param name="Name">The tensor's name, such as "blk.0.attn_q.weight".</param>
/// <param name="TypeName">"Q4_K", "F32", ...; null if the engine does not know the type.</param>
/// <param name="TypeNumber">The ggml type number.</param>
/// <param name="Shape">Elements, innermost dimension first; as many as are declared, 1 to 4.</param>
/// <param name="Offset">Bytes from the start of the data section.</param>
/// <param name="Size">Bytes; 0 if the type is not known.</param>
public sealed record GgufTensor(string Name, string? TypeName, int TypeNumber, IReadOnlyList<long> Shape, long Offset, long Size);
