using System.CommandLine;
using System.Net;
using System.Net.Sockets;
using LlamaKivi.Hosting;
using LlamaKivi.Server;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.HostFiltering;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Cli;

/// <summary>serve: OpenAI-compatible endpoints over a model or a folder of models. Options and environment variables have the names of llama.cpp's server.</summary>
internal static class ServeCommand
{
    public const string Name = "serve";

    public static Command Create()
    {
        var settings = new ServeSettings();
        var command = new Command(Name, "Serve a model over HTTP: OpenAI's chat, completion and embedding APIs, Anthropic's messages, metrics and health");
        CommonOptions.Add(command, settings.All);
        return command.Do((parsed, cancellationToken) => RunAsync(settings, parsed, cancellationToken));
    }

    private static async Task<int> RunAsync(ServeSettings settings, ParseResult parsed, CancellationToken cancellationToken)
    {
        WebApplication app = Build(settings.Engine(parsed), settings.Folder(parsed), settings.Server(parsed), settings.Address(parsed));
        await using (app.ConfigureAwait(false))
        {
            InferenceEngine? engine = app.Services.GetService<InferenceEngine>();
            await ListenAsync(app, settings.Address(parsed), cancellationToken).ConfigureAwait(false);
            Console.Out.WriteLine($"llama-kivi: listening on {string.Join(", ", app.Urls)}");
            Task stopped = app.WaitForShutdownAsync(cancellationToken);
            if (engine is not null)
            {
                await Task.WhenAny(stopped, engine.WaitUntilReadyAsync(CancellationToken.None)).ConfigureAwait(false);
            }

            if (engine?.Status.State == EngineState.Failed)
            {
                await engine.WaitUntilReadyAsync(CancellationToken.None).ConfigureAwait(false);  // throws the reason
            }

            await stopped.ConfigureAwait(false);
        }

        return ExitCode.Ok;
    }

    // A taken port is an IOException of the server already.
    private static async Task ListenAsync(WebApplication app, (string Host, int Port) address, CancellationToken cancellationToken)
    {
        try
        {
            await app.StartAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (SocketException e)
        {
            throw new IOException($"cannot listen on port {address.Port} of {address.Host}: {e.Message}; give another --host or --port", e);
        }
    }

    private static WebApplication Build(InferenceEngineOptions engine, ModelFolderOptions? folder, Action<LlamaKiviServerOptions> server, (string Host, int Port) address)
    {
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.Logging.AddSimpleConsole();
        builder.Logging.Services.Configure<Microsoft.Extensions.Logging.Console.ConsoleLoggerOptions>(options => options.LogToStandardErrorThreshold = LogLevel.Trace);
        builder.Logging.SetMinimumLevel(LogLevel.Warning);
        builder.Logging.AddFilter("LlamaKivi", LogLevel.Information);
        builder.Logging.AddFilter("Microsoft.Extensions.Hosting.Internal.Host", LogLevel.None);  // a failed start is one line of this command
        IPAddress ip = Resolve(address.Host);
        var connections = new ServeConnections();
        builder.WebHost.ConfigureKestrel(options =>
        {
            options.AddServerHeader = false;
            options.Listen(ip, address.Port, connections.Track);
        });
        builder.Services.AddSingleton<IHostedService>(_ => connections);  // before the engines, which then drain before it
        builder.Services.Configure<HostOptions>(options => options.ShutdownTimeout = engine.DrainTimeout + TimeSpan.FromSeconds(10));
        if (folder is not null)
        {
            builder.Services.AddLlamaKiviModels(options =>
            {
                (options.Folder, options.Engine) = (folder.Folder, engine);
                (options.MaxLoaded, options.IdleTimeout) = (folder.MaxLoaded, folder.IdleTimeout);
            });
        }
        else
        {
            builder.Services.AddMetrics();
            builder.Services.AddSingleton(services => new InferenceEngine(
                engine, services.GetRequiredService<ILogger<InferenceEngine>>(), services.GetRequiredService<System.Diagnostics.Metrics.IMeterFactory>()));
            builder.Services.AddSingleton<IHostedService>(services => services.GetRequiredService<InferenceEngine>());
        }

        if (IPAddress.IsLoopback(ip))
        {
            // A web page whose name resolves to this device must not reach the server through the user's browser.
            builder.Services.Configure<HostFilteringOptions>(options => options.AllowedHosts = ["localhost", "127.0.0.1", "[::1]", address.Host]);
        }

        WebApplication app = builder.Build();
        connections.Count(app);
        if (IPAddress.IsLoopback(ip))
        {
            app.UseHostFiltering();
        }

        app.MapLlamaKivi(options =>
        {
            server(options);
            if (!IPAddress.IsLoopback(ip) && options.ApiKeys.Count == 0)
            {
                Console.Error.WriteLine($"llama-kivi: {address.Host} is reachable from other machines, and no --api-key is set: anyone who reaches it may use the model");
            }
        });
        return app;
    }

    private static IPAddress Resolve(string host) => host == "localhost" ? IPAddress.Loopback
        : IPAddress.TryParse(host, out IPAddress? ip) ? ip
        : throw new UsageException($"--host is '{host}'; give localhost or an IP address such as 127.0.0.1 or 0.0.0.0");
}
