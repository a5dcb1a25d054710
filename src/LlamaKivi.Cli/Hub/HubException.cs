namespace LlamaKivi.Cli.Hub;

/// <summary>A model could not be taken from the hub; the message says what, where and what to do.</summary>
internal sealed class HubException(string message, Exception? innerException = null) : Exception(message, innerException);
