namespace LlamaKivi.BindingsGenerator;

/// <summary>Maps C types to C# types.</summary>
internal sealed class CSharpTypes(HeaderModel header)
{
    private static readonly Dictionary<string, string> Scalars = new(StringComparer.Ordinal)
    {
        ["void"] = "void",
        ["char"] = "byte",
        ["float"] = "float",
        ["double"] = "double",
        ["int8_t"] = "sbyte",
        ["uint8_t"] = "byte",
        ["int16_t"] = "short",
        ["uint16_t"] = "ushort",
        ["int32_t"] = "int",
        ["uint32_t"] = "uint",
        ["int64_t"] = "long",
        ["uint64_t"] = "ulong",
    };

    private readonly HashSet<string> _named =
        [.. header.Enums.Select(e => e.Name), .. header.Structs.Select(s => s.Name), .. header.OpaqueTypes];

    private readonly Dictionary<string, HeaderCallback> _callbacks = header.Callbacks.ToDictionary(c => c.Name, StringComparer.Ordinal);

    public string Of(string type, string where)
    {
        string name = type.Replace("const ", "", StringComparison.Ordinal).Replace("struct ", "", StringComparison.Ordinal);
        int pointers = name.Count(c => c == '*');
        name = name.Replace("*", "", StringComparison.Ordinal).Replace("const", "", StringComparison.Ordinal).Trim();

        string mapped;
        if (_callbacks.TryGetValue(name, out HeaderCallback? callback))
        {
            IEnumerable<string> types = callback.ParameterTypes.Append(callback.ReturnType).Select(t => Of(t, callback.Name));
            mapped = $"delegate* unmanaged[Cdecl]<{string.Join(", ", types)}>";
        }
        else if (_named.Contains(name))
        {
            mapped = name;
        }
        else if (!Scalars.TryGetValue(name, out mapped!))
        {
            throw new GeneratorException($"{where}: the C type '{type}' has no C# mapping; add one to {nameof(CSharpTypes)}.");
        }

        return mapped + new string('*', pointers);
    }

    /// <summary>Escapes a name that is a C# keyword.</summary>
    public static string Identifier(string name) => Keywords.Contains(name) ? "@" + name : name;

    private static readonly HashSet<string> Keywords = new(StringComparer.Ordinal)
    {
        "base", "bool", "byte", "char", "checked", "decimal", "delegate", "event", "fixed", "in", "internal", "is", "lock", "long",
        "new", "null", "object", "operator", "out", "override", "params", "ref", "sbyte", "short", "string", "this", "uint", "ulong",
    };
}
