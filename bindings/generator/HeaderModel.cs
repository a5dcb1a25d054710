namespace LlamaKivi.BindingsGenerator;

/// <summary>What the bindings need to know of the header, in the header's order.</summary>
internal sealed record HeaderModel(
    IReadOnlyList<HeaderConstant> Constants,
    IReadOnlyList<HeaderEnum> Enums,
    IReadOnlyList<string> OpaqueTypes,
    IReadOnlyList<HeaderCallback> Callbacks,
    IReadOnlyList<HeaderStruct> Structs,
    IReadOnlyList<HeaderFunction> Functions);

internal sealed record HeaderConstant(string Name, string Value, string? Doc);

internal sealed record HeaderEnum(string Name, string? Doc, IReadOnlyList<HeaderEnumMember> Members);

internal sealed record HeaderEnumMember(string Name, long Value, string? Doc);

/// <summary>A typedef of a pointer to a function.</summary>
internal sealed record HeaderCallback(string Name, string ReturnType, IReadOnlyList<string> ParameterTypes);

internal sealed record HeaderStruct(string Name, string? Doc, IReadOnlyList<HeaderField> Fields);

/// <summary>A struct's field; <see cref="Length"/> is the number of elements of an array, 0 for any other type.</summary>
internal sealed record HeaderField(string Name, string Type, int Length, string? Doc);

internal sealed record HeaderFunction(string Name, string ReturnType, string? Doc, IReadOnlyList<HeaderParameter> Parameters);

internal sealed record HeaderParameter(string Name, string Type);

/// <summary>Size and field offsets of a struct, in bytes, as clang computes them.</summary>
internal sealed record StructLayout(string Name, long Size, IReadOnlyList<FieldLayout> Fields);

internal sealed record FieldLayout(string Name, bool IsArray, long Offset);

/// <summary>An error whose message says all that the user needs.</summary>
internal sealed class GeneratorException(string message) : Exception(message);
