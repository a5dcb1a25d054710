using System.Reflection;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Tests;

/// <summary>The folder Compatibility contains the members that exist only for LLamaSharp programs; the rest of the library does not use them.</summary>
public sealed class CompatibilityFolderTests
{
    private const string Folder = "Compatibility/";
    private const string NativeEngineVariable = "LLAMA_KIVI_NATIVE_DIR";

    // Members that Compatibility adds to types of the library. Other files must not use them.
    private static readonly string[] AddedMembers = ["NativeHandle", "Vocab", "CreateChain"];

    private static readonly Dictionary<string, string> Code = SourceTree.Read("src/LlamaKivi").ToDictionary(file => file.Key, file => SourceTree.Code(file.Value));

    // Projects that depend on the library.
    private static readonly Dictionary<string, string> Above = ((string[])["src/LlamaKivi.Evaluation", "src/LlamaKivi.Cli"])
        .SelectMany(folder => SourceTree.Read(folder).Select(file => KeyValuePair.Create($"{folder}/{file.Key}", SourceTree.Code(file.Value)))).ToDictionary();

    private static IEnumerable<KeyValuePair<string, string>> Outside => Code.Where(file => !file.Key.StartsWith(Folder, StringComparison.Ordinal));

    private static IEnumerable<KeyValuePair<string, string>> Inside => Code.Where(file => file.Key.StartsWith(Folder, StringComparison.Ordinal));

    private static string[] CompatibilityTypes
    {
        get
        {
            // A partial type with a part outside the folder belongs outside.
            HashSet<string> elsewhere = [.. Outside.Concat(Above).SelectMany(file => SourceTree.Types(file.Value))];
            // Description is a common name, and reached through NativeLibraryConfig alone.
            elsewhere.Add(nameof(NativeLibraryConfig.Description));
            return [.. Inside.SelectMany(file => SourceTree.Types(file.Value)).Where(type => !elsewhere.Contains(type)).Distinct().Order(StringComparer.Ordinal)];
        }
    }

    [Fact]
    public void Nothing_outside_uses_it()
    {
        IEnumerable<string> extensions = Inside.SelectMany(file => Regex.Matches(file.Value, @"\bstatic [\w<>?\[\]]+ (\w+)(?:<\w+>)?\(this ").Select(match => match.Groups[1].Value))
            .Where(name => name != "Sample");  // also a method of pipelines and conversations
        string[] names = [.. CompatibilityTypes, .. AddedMembers, .. extensions];
        Assert.Contains("ToLlamaContextParams", names);
        Assert.Contains(nameof(SafeLLamaContextHandle), names);
        Assert.Contains(nameof(SafeLlamaModelHandle), names);
        Assert.Contains(nameof(SafeLLamaSamplerChainHandle), names);
        Assert.Contains(nameof(LLamaTokenDataArrayNative), names);
        Assert.Contains(nameof(NativeLibraryConfig), names);
        string[] uses = [.. Outside.Concat(Above).SelectMany(file => names.Where(name => SourceTree.Names(file.Value, name)).Select(name => $"{file.Key}: {name}"))];
        Assert.True(uses.Length == 0, $"{uses.Length} uses of Compatibility outside it:\n{string.Join('\n', uses)}");
    }

    // One class sorts logits and converts them to probabilities, for all uses.
    [Fact]
    public void Candidates_are_sorted_and_weighed_in_one_place()
    {
        string[] places = [.. Code.Where(file => Regex.IsMatch(file.Key, "^(Sampling|Compatibility|Batching|Inference)/") && !file.Key.StartsWith("Sampling/Grammars/", StringComparison.Ordinal))
            .Where(file => Regex.IsMatch(file.Value, @"\bMathF?\.Exp\(|\.Sort\((?!ref)|\bSoftMax\(")).Select(file => file.Key).Order(StringComparer.Ordinal)];
        Assert.Equal(["Sampling/CandidateSet.Stages.cs", "Sampling/CandidateSet.cs"], places);
    }

    [Theory]
    [InlineData(typeof(LLamaContext))]
    [InlineData(typeof(LLamaWeights))]
    public void A_context_and_a_model_do_not_know_their_views(Type owner)
    {
        HashSet<string> views = [.. CompatibilityTypes];
        FieldInfo[] fields = owner.GetFields(BindingFlags.Instance | BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic);
        Assert.NotEmpty(fields);
        Assert.DoesNotContain(fields, field => views.Contains(field.FieldType.Name));
    }

    [Fact]
    public void A_context_and_a_model_have_one_view_each()
    {
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(InferenceTests.DemoModel.Path));
        using LLamaContext context = weights.CreateContext(new ModelParams("") { ContextSize = 64 });
        Assert.Same(context.NativeHandle, context.NativeHandle);
        Assert.Same(weights.NativeHandle, context.NativeHandle.ModelHandle);
        Assert.Same(weights.Vocab, context.Vocab);
    }

    [Fact]
    public void Documentation_names_every_ignored_setting()
    {
        string[] ignored = [.. Ignored().Append("BatchThreads").Append("Encoding").Distinct().Order(StringComparer.Ordinal)];
        foreach (string known in (string[])["MainGpu", "FlashAttention", "WithCuda", "WithAvx", "NoPerf", "Synchronize"])
        {
            Assert.Contains(known, ignored);
        }

        string text = File.ReadAllText(Path.Combine(SourceTree.Root, "docs", "from-llamasharp.md"));
        string section = text[text.IndexOf("## Settings that are accepted and ignored", StringComparison.Ordinal)..];
        HashSet<string> named = [.. Regex.Matches(section, @"`(\w+)[`(]").Select(match => match.Groups[1].Value)];
        Assert.DoesNotContain(ignored, name => !named.Contains(name));

        // The section names only existing members.
        HashSet<string> members = [.. typeof(LLamaContext).Assembly.GetExportedTypes().SelectMany(type => type.GetMembers()
            .SelectMany(member => (member as MethodBase)?.GetParameters().Select(parameter => parameter.Name!).Append(member.Name) ?? [member.Name])
            .Append(type.Name))];
        members.Add(NativeEngineVariable);
        Assert.DoesNotContain(named, name => !members.Contains(name));
    }

    // Members that are ignored, or have an ignored parameter, according to their documentation.
    private static IEnumerable<string> Ignored()
    {
        XDocument documentation = XDocument.Load(Path.Combine(AppContext.BaseDirectory, "LlamaKivi.xml"));
        foreach (XElement member in documentation.Descendants("member"))
        {
            string name = member.Attribute("name")!.Value;
            bool isSetting = !name.StartsWith("T:", StringComparison.Ordinal) && !name.StartsWith("P:LlamaKivi.Native.LLamaModelParams.", StringComparison.Ordinal);
            if (isSetting && member.Elements().Any(element => Regex.IsMatch(element.Value, @"\b(A hint|Hint, ignored|Ignored|Without effect)\b")))
            {
                // A constructor is listed under its type.
                yield return Regex.Match(name, @"(\w+)(?:\.#ctor)?(?:\(.*\))?$").Groups[1].Value;
            }
        }
    }
}
