using System.Reflection;
using System.Text.RegularExpressions;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Tests;

/// <summary>The folder Compatibility contains the members that exist only for LLamaSharp programs; the rest of the library does not use them.</summary>
public sealed class CompatibilityFolderTests
{
    private const string Folder = "Compatibility/";

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
}
