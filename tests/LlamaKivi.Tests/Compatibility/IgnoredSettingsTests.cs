using System.Reflection;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>Members and parameters that are accepted and ignored stand in Compatibility, are unused elsewhere, and are listed in docs/from-llamasharp.md.</summary>
public sealed class IgnoredSettingsTests
{
    private const string Table = "## Settings that are accepted and ignored";
    private const string Words = "Accepted and ignored: ";

    private static readonly Assembly Library = typeof(LLamaWeights).Assembly;

    private static readonly (MethodBase Method, string File)[] Methods = [.. CompiledCode.Methods(Library)];

    // "Type.Member", or "Type.Member: parameter".
    private static readonly (string Name, MemberInfo Member)[] Marked = [.. Library.GetTypes().SelectMany(MarkedOf)];

    // By metadata token.
    private static readonly Dictionary<int, string> MarkedMethods = Marked
        .SelectMany(marked => (marked.Member is PropertyInfo property ? property.GetAccessors(nonPublic: true) : new[] { (MethodBase)marked.Member }).Select(method => (method.MetadataToken, marked.Name)))
        .DistinctBy(method => method.MetadataToken).ToDictionary();

    [Fact]
    public void They_stand_in_Compatibility()
    {
        string[] known = ["IModelParams.MainGpu", "ModelParams.MainGpu", "IContextParams.Encoding", "DefaultSamplingPipeline.GrammarOptimization", "LLamaWeights.Tokenize: encoding", "NativeLibraryConfig.WithCuda"];
        Assert.All(known, name => Assert.Contains(Marked, marked => marked.Name == name));
        string[] elsewhere = [.. Methods.Where(method => !IsInside(method.File) && MarkedMethods.ContainsKey(method.Method.MetadataToken)).Select(method => $"{Name(method.Method)} in {method.File}")];
        Assert.Empty(elsewhere);
        // Without debug information the line above would prove nothing.
        Assert.Contains(Methods, method => IsInside(method.File) && MarkedMethods.ContainsKey(method.Method.MetadataToken));
    }

    [Fact]
    public void The_library_does_not_use_them_elsewhere()
    {
        string[] uses = [.. Methods.Where(method => !IsInside(method.File)).SelectMany(method => CompiledCode.Uses(method.Method).Where(MarkedMethods.ContainsKey)
            .Select(used => $"{method.File}: {Name(method.Method)} uses {MarkedMethods[used]}"))];
        Assert.Empty(uses);
        Assert.Contains(Methods.Where(method => IsInside(method.File)).SelectMany(method => CompiledCode.Uses(method.Method)), used => MarkedMethods.ContainsKey(used));
    }

    [Theory]
    [InlineData("src/LlamaKivi.Evaluation")]
    [InlineData("src/LlamaKivi.Cli")]
    [InlineData("samples")]
    public void Programs_of_this_repository_do_not_use_them(string folder)
    {
        // Encoding is also a property of text writers.
        string[] settings = [.. Marked.Where(marked => marked.Member is PropertyInfo).Select(marked => marked.Member.Name).Where(name => name != nameof(TextWriter.Encoding)).Distinct()];
        var use = new Regex($@"\.({string.Join('|', settings)})\b|\b({string.Join('|', settings)}) = ");
        Assert.Matches(use, "new ModelParams(path) { MainGpu = 1 }");
        Assert.Matches(use, "parameters.FlashAttention");
        string[] uses = [.. SourceTree.Read(folder).SelectMany(file => use.Matches(SourceTree.Code(file.Value)).Select(match => $"{file.Key}: {match.Value}"))];
        Assert.Empty(uses);
    }

    // A setting that nothing reads has no effect, so it must be marked.
    [Theory]
    [InlineData(typeof(IModelParams))]
    [InlineData(typeof(IContextParams))]
    [InlineData(typeof(IInferenceParams))]
    [InlineData(typeof(DefaultSamplingPipeline))]
    public void Every_other_setting_is_read(Type type)
    {
        HashSet<int> used = [.. Methods.Where(method => !IsInside(method.File)).SelectMany(method => CompiledCode.Uses(method.Method))];
        string[] unread = [.. type.GetProperties().Where(property => !IsMarked(property) && !property.IsDefined(typeof(ObsoleteAttribute)) && !property.Name.EndsWith("Section", StringComparison.Ordinal))
            .Where(property => !used.Contains(property.GetMethod!.MetadataToken) && !IsPassedOn(property)).Select(property => property.Name)];
        Assert.Empty(unread);
    }

    [Fact]
    public void A_class_ignores_what_its_interface_ignores()
    {
        foreach (PropertyInfo property in typeof(ILLamaParams).GetInterfaces().SelectMany(type => type.GetProperties()))
        {
            Assert.Equal((property.Name, IsMarked(property)), (property.Name, IsMarked(typeof(ModelParams).GetProperty(property.Name)!)));
        }
    }

    [Fact]
    public void Documentation_lists_them_all_and_no_others()
    {
        string text = File.ReadAllText(Path.Combine(SourceTree.Root, "docs", "from-llamasharp.md"));
        string section = text[text.IndexOf(Table, StringComparison.Ordinal)..];
        var listed = new HashSet<string>();
        string[] types = [];
        foreach (string[] cells in section.Split('\n').Where(line => line.StartsWith('|')).Skip(2).Select(line => line.Split('|')))
        {
            types = Names(cells[1]) is { Length: > 0 } named ? named : types;
            listed.UnionWith(types.SelectMany(type => Names(cells[2]).Select(name => $"{type}.{name}")));
        }

        // The class of the parameters ignores what its interfaces ignore.
        string[] marked = [.. Marked.Select(marked => marked.Name).Where(name => !name.StartsWith("ModelParams.", StringComparison.Ordinal)).Distinct().Order(StringComparer.Ordinal)];
        Assert.Equal(marked, listed.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Their_documentation_gives_the_reason()
    {
        XElement[] members = [.. XDocument.Load(Path.Combine(AppContext.BaseDirectory, "LlamaKivi.xml")).Descendants("member")];
        string[] ids = [.. members.Where(member => member.Value.Contains(Words, StringComparison.Ordinal)).Select(member => member.Attribute("name")!.Value)];
        string[] documented = [.. ids.Select(id => Regex.Match(id, @"^\w:[\w.]*?([\w]+)\.(#?\w+)(?:\(|$)") is var match && match.Groups[2].Value == "#ctor" ? $"{match.Groups[1]}.{match.Groups[1]}" : $"{match.Groups[1]}.{match.Groups[2]}")];
        string[] marked = [.. Marked.Select(marked => marked.Name.Split(':')[0])];
        Assert.Equal(marked.Distinct().Order(StringComparer.Ordinal), documented.Distinct().Order(StringComparer.Ordinal));
        Assert.Empty(members.Where(member => Regex.IsMatch(member.Value, @"\b[Hh]ints?\b|\b[Ww]ithout effect\b|\bIgnored:")).Select(member => member.Attribute("name")!.Value));
    }

    private static IEnumerable<(string Name, MemberInfo Member)> MarkedOf(Type type)
    {
        foreach (MemberInfo member in type.GetMembers(BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly))
        {
            string name = $"{type.Name}.{(member is ConstructorInfo ? type.Name : member.Name)}";
            if (IsMarked(member))
            {
                yield return (name, member);
            }

            foreach (ParameterInfo parameter in (member as MethodBase)?.GetParameters().Where(parameter => parameter.IsDefined(typeof(AcceptedAndIgnoredAttribute))) ?? [])
            {
                yield return ($"{name}: {parameter.Name}", member);
            }
        }
    }

    private static bool IsMarked(MemberInfo member) => member.IsDefined(typeof(AcceptedAndIgnoredAttribute), inherit: false);

    // Whether the setter stores the value in another object.
    private static bool IsPassedOn(PropertyInfo property) =>
        property.SetMethod is { } setter && CompiledCode.Uses(setter).Any(used => Library.ManifestModule.ResolveMethod(used) is { IsSpecialName: true } other && other.Name.StartsWith("set_", StringComparison.Ordinal));

    private static bool IsInside(string file) => file.Contains("/src/LlamaKivi/Compatibility/", StringComparison.Ordinal);

    private static string[] Names(string cell) => [.. Regex.Matches(cell, "`([^`]+)`").Select(match => match.Groups[1].Value)];

    private static string Name(MethodBase method) => $"{method.DeclaringType?.Name}.{method.Name}";
}
