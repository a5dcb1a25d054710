using System.CommandLine;
using LlamaKivi.Native;
using LlamaKivi.Exceptions;

namespace LlamaKivi.Cli.Tests;

/// <summary>Every option of serve with values that a count, a size or a type seldom has: it has a meaning, or the error names the option.</summary>
public sealed class ServeOptionTests : IDisposable
{
    private const string Most = "2147483647";
    private const string Huge = "99999999999999999999";

    // Names, keys and paths: any text but the empty one.
    private static readonly string[] Texts = ["--model", "--models", "--alias", "--host", "--api-key", "--api-key-file", "--slot-save-path", "--prefix-path"];

    // What has a meaning; the help text states it.
    private static readonly Dictionary<string, string[]> Meanings = new(StringComparer.Ordinal)
    {
        ["--port"] = ["0"],            // any free port
        ["--models-max"] = ["0"],      // as many as fit
        ["--queue"] = ["0"],           // nothing waits
        ["--cache-ram"] = ["0"],       // none
        ["--gpu-layers"] = ["0", "-1", Most],
        ["--n-predict"] = ["-1", Most],  // -1: the cache's capacity
        ["--kv-memory"] = [Most],      // bytes
        ["--kv-group"] = ["0"],        // the type's own
        ["--kv-sink"] = ["0"],
        ["--kv-refined"] = ["0"],
        ["--kv-undo"] = ["0"],
    };

    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;

    public static TheoryData<string, string> Cases
    {
        get
        {
            var cases = new TheoryData<string, string>();
            foreach (Option option in new ServeSettings().All.Where(option => option.ValueType != typeof(bool)))
            {
                foreach (string value in Texts.Contains(option.Name) ? [""] : (string[])["0", "-1", Most, Huge, "", "NaN"])
                {
                    cases.Add(option.Name, value);
                }
            }

            return cases;
        }
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_value_has_a_meaning_or_the_error_names_the_option(string name, string value)
    {
        Option option = new ServeSettings().All.Single(option => option.Name == name);
        string? error = Refusal([.. Others(name), name, value]);
        if (Meanings.GetValueOrDefault(name)?.Contains(value) == true)
        {
            Assert.Null(error);
            return;
        }

        Assert.NotNull(error);
        Assert.Contains([name, .. option.Aliases], error.Contains);
    }

    [Theory]
    [InlineData("--models-max", "2")]
    [InlineData("--models-idle", "60")]
    public void An_option_of_a_folder_needs_a_folder(string name, string value) =>
        Assert.Contains($"{name} is given without --models", Refusal(["-m", CommandLine.Model, name, value]), StringComparison.Ordinal);

    [Fact]
    public void A_context_that_holds_no_answer_is_refused() =>
        Assert.StartsWith("--ctx-size is 1; it must be a whole number from 2 to ", Refusal(["-m", CommandLine.Model, "-c", "1"]), StringComparison.Ordinal);

    [Fact]
    public void Weights_are_read_into_memory_on_request()
    {
        var settings = new ServeSettings();
        Assert.Equal(LLamaLoadMode.MemoryMap, settings.Engine(Parse(settings, ["-m", CommandLine.Model])).LoadMode);
        Assert.Equal(LLamaLoadMode.None, settings.Engine(Parse(settings, ["-m", CommandLine.Model, "--no-mmap"])).LoadMode);
    }

    [Fact]
    public void A_file_of_keys_is_one_that_can_be_read()
    {
        foreach (string file in (string[])[Path.Combine(_folder, "none"), _folder])
        {
            string? error = Refusal(["-m", CommandLine.Model, "--api-key-file", file]);
            Assert.Contains("--api-key-file", error, StringComparison.Ordinal);
            Assert.Contains(file, error, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("key\n\0\n", 2)]
    [InlineData("key\n\nthe\tkey\n", 3)]
    [InlineData("k\u00ff\u00fe\n", 1)]
    public void A_key_that_no_client_can_send_is_named_by_its_line(string bytes, int line)
    {
        string file = Path.Combine(_folder, "keys");
        File.WriteAllText(file, bytes, System.Text.Encoding.Latin1);
        string? error = Refusal(["-m", CommandLine.Model, "--api-key-file", file]);
        Assert.StartsWith($"line {line} of the --api-key-file '{file}' has control characters or bytes that are not UTF-8", error, StringComparison.Ordinal);
        Assert.DoesNotContain("the\tkey", error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_of_keys_may_have_a_mark_and_empty_lines()
    {
        string file = Path.Combine(_folder, "keys");
        File.WriteAllText(file, "\r\n first \r\n\r\nzw\u00f6lf\r\n", System.Text.Encoding.UTF8);
        Assert.Null(Refusal(["-m", CommandLine.Model, "--api-key-file", file]));
    }

    [Fact]
    public void A_file_without_keys_is_named()
    {
        string file = Path.Combine(_folder, "keys");
        File.WriteAllText(file, "\n \n");
        Assert.StartsWith("--api-key-file has no key", Refusal(["-m", CommandLine.Model, "--api-key-file", file]), StringComparison.Ordinal);
        Assert.StartsWith("--api-key has no key", Refusal(["-m", CommandLine.Model, "--api-key", ",,"]), StringComparison.Ordinal);
    }

    [Fact]
    public void A_folder_has_no_alias() => Assert.Contains("--alias", Refusal(["--models", _folder, "--alias", "mine"]), StringComparison.Ordinal);

    [Fact]
    public void Zero_models_are_as_many_as_fit()
    {
        var settings = new ServeSettings();
        Assert.Equal(int.MaxValue, settings.Folder(Parse(settings, ["--models", _folder, "--models-max", "0"]))!.MaxLoaded);
    }

    private string[] Others(string name) => name.StartsWith("--models-", StringComparison.Ordinal) ? ["--models", _folder]
        : name is "--model" or "--models" ? []
        : ["-m", CommandLine.Model];

    private static ParseResult Parse(ServeSettings settings, string[] arguments)
    {
        var command = new Command("serve");
        CommonOptions.Add(command, settings.All);
        return command.Parse(arguments);
    }

    // The error; null: the options are accepted.
    private static string? Refusal(string[] arguments)
    {
        var settings = new ServeSettings();
        ParseResult parsed = Parse(settings, arguments);
        if (parsed.Errors.Count > 0)
        {
            return parsed.Errors[0].Message;
        }

        try
        {
            settings.Engine(parsed);
            settings.Folder(parsed);
            settings.Server(parsed);
            settings.Address(parsed);
            return null;
        }
        catch (Exception e) when (e is UsageException or ArgumentException or RuntimeError)
        {
            return Errors.FirstLine(e);
        }
    }
}
