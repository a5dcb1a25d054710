using System.CommandLine;
using System.Globalization;

namespace LlamaKivi.Cli.Tests;

/// <summary>Every numeric option of every command rejects values that are not numbers or out of range, in one plain sentence.</summary>
public sealed class NumberTests
{
    private static readonly RootCommand Root = Commands.CreateRoot();

    public static TheoryData<string, string> Options
    {
        get
        {
            var data = new TheoryData<string, string>();
            foreach (Command command in Root.Subcommands)
            {
                foreach (Option option in command.Options.Where(option => IsNumber(option.ValueType)))
                {
                    data.Add(command.Name, option.Name);
                }
            }

            return data;
        }
    }

    private static bool IsNumber(Type type) => (Nullable.GetUnderlyingType(type) ?? type) is var t && t != typeof(bool) && t.IsPrimitive;

    [Fact]
    public void There_are_many() => Assert.True(Options.Count > 60, $"{Options.Count}");

    [Theory]
    [MemberData(nameof(Options))]
    public void Numbers_out_of_range_name_the_option(string command, string name)
    {
        Option option = Root.Subcommands.Single(c => c.Name == command).Options.Single(o => o.Name == name);
        foreach (string alias in option.Aliases.Append(option.Name))
        {
            foreach (string value in (string[])["abc", "", "NaN", "-Infinity", "-99999999999999999999", "99999999999999999999999999999999999999999", "1e99", "-7", "1,5", "0x10"])
            {
                string[] said = [.. Root.Parse([command, alias, value]).Errors.Select(error => error.Message).Where(message => !message.Contains("equired", StringComparison.Ordinal))];
                string message = Assert.Single(said);
                Assert.Matches($"^--?[a-z-]+ is {System.Text.RegularExpressions.Regex.Escape(value)}; it must be a (whole )?number ", message);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Options))]
    public void The_default_is_a_value_that_is_taken(string command, string name)
    {
        Option option = Root.Subcommands.Single(c => c.Name == command).Options.Single(o => o.Name == name);
        if (option.HasDefaultValue && option.GetDefaultValue() is { } value)
        {
            string text = Convert.ToString(value, CultureInfo.InvariantCulture)!;
            Assert.DoesNotContain(Root.Parse([command, name, text]).Errors, error => error.Message.Contains("must be", StringComparison.Ordinal));
        }
    }

    [Theory]
    [InlineData("-s is -1; it must be a whole number from 0 to 4294967295, or omit it for a random seed", "run", "-p", "x", "-s", "-1")]
    [InlineData("-n is 4000 and -c is 2048: a row's prompt and its generated tokens must fit in the context; raise -c above 4000", "eval", "--task", "unused", "-n", "4000")]
    [InlineData("-c and -npl need a context of", "eval", "--task", "/dev/null", "-c", "1000000000", "-npl", "4096")]
    [InlineData("-npl, -npp and -ntg need a context of", "batched-bench", "-npl", "60000", "-npp", "1000000", "-ntg", "1")]
    [InlineData("-p and -n are both 0: there is nothing to measure", "bench", "-p", "0", "-n", "0")]
    [InlineData("-d: '-1' is not a number from 0 to", "bench", "-d", "-1")]
    [InlineData("--depths: '99999999999' is not a number from 1 to", "retrieval", "--depths", "99999999999")]
    public async Task Combined_options_are_checked(string expected, params string[] arguments)
    {
        CommandLine.Result result = await CommandLine.RunAsync(arguments);
        Assert.Equal(2, result.ExitCode);
        Assert.Contains(expected, result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("raise ContextSize, or set OverflowStrategy to Shift or Stop.", "raise -c.")]
    [InlineData("KvCache.Group is 48; types that fit for KvCache.TypeK: f16", "--kv-group is 48; types that fit for --kv-cache: f16")]
    [InlineData("KvCache.ResidualType q8_0; KvCache.Residual 3; KvCache.Undo 2, KvCache.RefinedEighths 3", "--kv-residual-type q8_0; --kv-residual 3; --kv-undo 2, --kv-refined 3")]
    [InlineData("raise the budget (KvCache.MemoryBudget); KvCache.Undo is 65", "raise the budget (--kv-memory); --kv-undo is 65")]
    [InlineData("Threads is 2000; GpuLayerCount is -2; SeqMax", "-t is 2000; -ngl is -2; --parallel")]
    [InlineData("cannot open '/Threads/ContextSize.gguf'", "cannot open '/Threads/ContextSize.gguf'")]
    public void Messages_speak_of_options(string message, string expected) => Assert.Equal(expected, Errors.Words(message));

    [Theory]
    [InlineData("serve")]
    [InlineData("batched-bench")]
    [InlineData("eval")]
    [InlineData("generation")]
    public void Commands_of_many_sequences_have_the_option_that_messages_name(string command)
    {
        string option = Errors.Words("SeqMax");
        Assert.Contains(Root.Subcommands.Single(c => c.Name == command).Options, o => o.Name == option || o.Aliases.Contains(option));
    }
}
