using System.CommandLine;
using System.CommandLine.Parsing;

namespace LlamaKivi.Cli;

/// <summary>The options that serve shares with other commands, each with an environment variable. The command line overrides the environment.</summary>
internal sealed class SharedOptions
{
    private readonly Command _command = new("shared");
    private readonly Dictionary<Option, string> _variables;

    /// <summary>Creates the shared options, and reads others in the same way.</summary>
    public SharedOptions(params Option[] others)
    {
        All = [.. others, Common.TypeK, Common.TypeV, .. Common.Context, Common.Fit];
        _variables = All.ToDictionary(option => option, Variable);
        foreach ((Option option, string variable) in _variables)
        {
            option.Description += $" [{variable}]";
            _command.Options.Add(option);
        }
    }

    public CommonOptions Common { get; } = new();

    public Option[] All { get; }

    /// <summary>Reads the options from the command line, and those not given there from the environment.</summary>
    /// <exception cref="UsageException">An argument is empty, or a variable's value is not valid; the message names the option or the variable.</exception>
    public ParseResult Read(ParseResult parsed)
    {
        var arguments = new List<string>();
        foreach ((Option option, string variable) in _variables)
        {
            if (parsed.GetResult(option) is { Implicit: false } given)
            {
                if (given.Tokens.Any(token => string.IsNullOrWhiteSpace(token.Value)))
                {
                    throw Empty(option);
                }

                arguments.AddRange(given.Tokens.Count == 0 ? [option.Name] : given.Tokens.Select(token => $"{option.Name}={token.Value}"));
            }
            else if (Environment.GetEnvironmentVariable(variable) is { Length: > 0 } value)
            {
                string argument = $"{option.Name}={(option is Option<bool> ? Truth(value) : value)}";
                if (_command.Parse([argument]).Errors is [ParseError error, ..])
                {
                    throw new UsageException($"{variable}: {error.Message}");
                }

                arguments.Add(argument);
            }
        }

        return _command.Parse(arguments);
    }

    /// <summary>The error of an argument without a value, most likely a script's mistake.</summary>
    public static UsageException Empty(Option option) => new($"{option.Name} is empty; give a value, or leave it out");

    // LLAMA_ARG_KV_GROUP for --kv-group.
    private static string Variable(Option option) =>
        $"LLAMA_ARG_{(option.Name == "--gpu-layers" ? "N_GPU_LAYERS" : option.Name.TrimStart('-').Replace('-', '_').ToUpperInvariant())}";

    private static string Truth(string value) => value switch
    {
        "1" => "true",
        "0" => "false",
        _ => value,
    };
}
