namespace LlamaKivi.BindingsGenerator;

/// <summary>The header's declarations, in file order.</summary>
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

/// <summary>A typedef of a function pointer.</summary>
internal sealed record HeaderCallback(string Name, string ReturnType, IReadOnlyList<string> ParameterTypes);

internal sealed record HeaderStruct(string Name, string? Doc, IReadOnlyList<HeaderField> Fields);

/// <summary>A field of a struct. <see cref="Length"/>: elements of an array, 0 for other types.</summary>
internal sealed record HeaderField(string Name, string Type, int Length, string? Doc);

internal sealed record HeaderFunction(string Name, string ReturnType, string? Doc, IReadOnlyList<HeaderParameter> Parameters);

internal sealed record HeaderParameter(string Name, string Type);

/// <summary>Size and field offsets of a struct in bytes, computed by clang.</summary>
internal sealed record StructLayout(string Name, long Size, IReadOnlyList<FieldLayout> Fields);

internal sealed record FieldLayout(string Name, bool IsArray, long Offset);

/// <summary>An error that is shown to the user as its message alone.</summary>
internal sealed class GeneratorException(string message) : Exception(message);
