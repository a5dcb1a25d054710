using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace LlamaKivi.BindingsGenerator;

/// <summary>Converts clang's syntax tree of the header to a <see cref="HeaderModel"/>.</summary>
internal sealed partial class HeaderReader(Clang clang, string headerPath)
{
    private readonly byte[] _source = File.ReadAllBytes(headerPath);

    public HeaderModel Read()
    {
        JsonElement[] nodes = [.. clang.Parse(headerPath).Where(node => Name(node).StartsWith("lk_", StringComparison.Ordinal))];
        JsonElement[] structs = [.. nodes.Where(node => Kind(node) == "RecordDecl" && node.TryGetProperty("completeDefinition", out _))];
        HashSet<string> defined = [.. structs.Select(Name)];

        return new HeaderModel(
            ReadConstants(),
            [.. nodes.Where(node => Kind(node) == "EnumDecl").Select(ReadEnum)],
            [.. nodes.Where(node => Kind(node) == "RecordDecl").Select(Name).Where(name => !defined.Contains(name)).Distinct(StringComparer.Ordinal)],
            [.. nodes.Where(node => Kind(node) == "TypedefDecl" && Type(node).Contains("(*)")).Select(ReadCallback)],
            [.. structs.Select(ReadStruct)],
            [.. nodes.Where(node => Kind(node) == "FunctionDecl").Select(ReadFunction)]);
    }

    /// <summary>Computes the layout of every struct: clang evaluates sizes and offsets as enumerators of a probe file.</summary>
    public IReadOnlyList<StructLayout> ReadLayouts(HeaderModel header)
    {
        var probe = new StringBuilder();
        probe.Append("#include \"").Append(Path.GetFullPath(headerPath).Replace('\\', '/')).Append("\"\nenum lk_probe {\n");
        foreach (HeaderStruct type in header.Structs)
        {
            probe.Append($"    size__{type.Name} = (int)sizeof({type.Name}),\n");
            foreach (HeaderField field in type.Fields)
            {
                probe.Append($"    offset__{type.Name}__{field.Name} = (int)__builtin_offsetof({type.Name}, {field.Name}),\n");
            }
        }

        probe.Append("};\n");
        string probePath = Path.Combine(Path.GetTempPath(), $"lk-probe-{Guid.NewGuid():N}.c");
        try
        {
            File.WriteAllText(probePath, probe.ToString());
            JsonElement values = clang.Parse(probePath).Single(node => Name(node) == "lk_probe");
            Dictionary<string, long> value = ReadEnum(values, withDocs: false).Members.ToDictionary(m => m.Name, m => m.Value, StringComparer.Ordinal);
            return [.. header.Structs.Select(type => new StructLayout(
                type.Name,
                value[$"size__{type.Name}"],
                [.. type.Fields.Select(field => new FieldLayout(field.Name, field.Length > 0, value[$"offset__{type.Name}__{field.Name}"]))]))];
        }
        finally
        {
            File.Delete(probePath);
        }
    }

    private HeaderEnum ReadEnum(JsonElement node) => ReadEnum(node, withDocs: true);

    private HeaderEnum ReadEnum(JsonElement node, bool withDocs)
    {
        var members = new List<HeaderEnumMember>();
        long next = 0;
        foreach (JsonElement member in Children(node, "EnumConstantDecl"))
        {
            JsonElement given = Children(member, "ConstantExpr").FirstOrDefault();
            bool hasValue = given.ValueKind == JsonValueKind.Object;
            if (!hasValue && member.TryGetProperty("inner", out JsonElement inner) && inner.EnumerateArray().Any(child => Kind(child) != "FullComment"))
            {
                throw new GeneratorException($"{Name(member)}: the value is not an int constant; cast it to int.");
            }

            long value = hasValue ? long.Parse(given.GetProperty("value").GetString()!, CultureInfo.InvariantCulture) : next;
            members.Add(new HeaderEnumMember(Name(member), value, withDocs ? Doc(member) : null));
            next = value + 1;
        }

        return new HeaderEnum(Name(node), withDocs ? Doc(node) : null, members);
    }

    private HeaderCallback ReadCallback(JsonElement node)
    {
        Match match = CallbackType().Match(Type(node));
        if (!match.Success)
        {
            throw new GeneratorException($"{Name(node)}: the function pointer type '{Type(node)}' is not supported; extend {nameof(ReadCallback)}.");
        }

        return new HeaderCallback(Name(node), match.Groups[1].Value.Trim(), SplitTypes(match.Groups[2].Value));
    }

    private HeaderStruct ReadStruct(JsonElement node) =>
        new(Name(node), Doc(node), [.. Children(node, "FieldDecl").Select(ReadField)]);

    private HeaderField ReadField(JsonElement node)
    {
        Match array = ArrayType().Match(Type(node));
        return array.Success
            ? new HeaderField(Name(node), array.Groups[1].Value.Trim(), int.Parse(array.Groups[2].Value, CultureInfo.InvariantCulture), Doc(node))
            : new HeaderField(Name(node), Type(node), 0, Doc(node));
    }

    private HeaderFunction ReadFunction(JsonElement node)
    {
        string type = Type(node);
        return new HeaderFunction(
            Name(node),
            type[..type.IndexOf('(', StringComparison.Ordinal)].Trim(),
            Doc(node),
            [.. Children(node, "ParmVarDecl").Select(parameter => new HeaderParameter(Name(parameter), Type(parameter)))]);
    }

    /// <summary>Finds integer #defines in the source text, because macros are not in the syntax tree.</summary>
    private List<HeaderConstant> ReadConstants() =>
        [.. IntegerDefine().Matches(Encoding.UTF8.GetString(_source)).Select(match => new HeaderConstant(
            match.Groups["name"].Value,
            match.Groups["value"].Value,
            match.Groups["doc"].Success ? CleanComment(match.Groups["doc"].Value) : null))];

    /// <summary>A declaration's comment, from the source text: clang's parsed comments drop text that looks like HTML or a command.</summary>
    private string? Doc(JsonElement node)
    {
        JsonElement comment = Children(node, "FullComment").FirstOrDefault();
        if (comment.ValueKind != JsonValueKind.Object)
        {
            return null;
        }

        JsonElement range = comment.GetProperty("range");
        int begin = range.GetProperty("begin").GetProperty("offset").GetInt32();
        int end = range.GetProperty("end").GetProperty("offset").GetInt32() + range.GetProperty("end").GetProperty("tokLen").GetInt32();
        return CleanComment(Encoding.UTF8.GetString(_source, begin, end - begin));
    }

    private static string CleanComment(string text)
    {
        string[] lines = text.Split('\n');
        return string.Join(' ', lines.Select(line => line.Trim().TrimStart('*').Trim()).Where(line => line.Length > 0));
    }

    private static string[] SplitTypes(string list) =>
        list.Trim() is "" or "void" ? [] : [.. list.Split(',').Select(type => type.Trim())];

    private static string Kind(JsonElement node) => node.GetProperty("kind").GetString()!;

    private static string Name(JsonElement node) => node.TryGetProperty("name", out JsonElement name) ? name.GetString()! : "";

    private static string Type(JsonElement node) => node.GetProperty("type").GetProperty("qualType").GetString()!;

    private static IEnumerable<JsonElement> Children(JsonElement node, string kind) =>
        node.TryGetProperty("inner", out JsonElement inner) ? inner.EnumerateArray().Where(child => Kind(child) == kind) : [];

    [GeneratedRegex(@"^(.+)\(\*\)\((.*)\)$")]
    private static partial Regex CallbackType();

    [GeneratedRegex(@"^(.+?)\s*\[(\d+)\]$")]
    private static partial Regex ArrayType();

    [GeneratedRegex(@"(?:/\*\*(?<doc>(?:[^*]|\*(?!/))*)\*/[ \t]*\r?\n)?^#define[ \t]+(?<name>LK_\w+)[ \t]+(?<value>\d+)[ \t]*\r?$", RegexOptions.Multiline)]
    private static partial Regex IntegerDefine();
}
