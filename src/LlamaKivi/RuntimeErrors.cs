using LlamaKivi.Native;

namespace LlamaKivi.Exceptions;

/// <summary>Decoding a batch failed.</summary>
public class LLamaDecodeError(DecodeResult returnCode) : RuntimeError($"The batch was not decoded: {returnCode}.")
{
    /// <summary>Result of decoding.</summary>
    public DecodeResult ReturnCode { get; } = returnCode;
}

/// <summary>A chat template is missing.</summary>
public class MissingTemplateException : RuntimeError
{
    /// <summary>Creates the exception with a default message.</summary>
    public MissingTemplateException()
        : base("No chat template is set; specify one.")
    {
    }

    /// <summary>Creates the exception with a message.</summary>
    public MissingTemplateException(string message)
        : base(message)
    {
    }
}

/// <summary>The model file has no chat template of the requested name, or none at all.</summary>
public class TemplateNotFoundException : RuntimeError
{
    // Name that stands for the unnamed template.
    internal const string Default = "default template";

    /// <summary>Creates the exception for a template name.</summary>
    public TemplateNotFoundException(string name)
        : this(name, [])
    {
    }

    internal TemplateNotFoundException(string name, string[] names)
        : base(Describe(name) + (names.Length == 0 ? "" : $" Its templates are {string.Join(", ", names)}."))
    {
    }

    private static string Describe(string name) => name == Default
        ? "The model's file has no chat template (tokenizer.chat_template); specify one."
        : $"The model's file has no chat template '{name}' (tokenizer.chat_template.{name}).";
}

/// <summary>Logits were requested at an index for which none were computed.</summary>
public class GetLogitsInvalidIndexException(int index) : RuntimeError($"There are no logits at index {index}: none were requested when the batch was decoded.")
{
    /// <summary>Batch index.</summary>
    public int Index { get; } = index;
}

/// <summary>A requested device does not exist.</summary>
/// <param name="requestedDevice">Its name.</param>
/// <param name="availableDevices">Names of the devices that are there.</param>
public class UnknownDeviceException(string requestedDevice, IReadOnlyList<string> availableDevices)
    : RuntimeError($"Devices names '{requestedDevice}'; this machine has {string.Join(", ", availableDevices)}. Name one of these, or leave Devices empty.")
{
    /// <summary>The name that was given.</summary>
    public string RequestedDevice { get; } = requestedDevice;

    /// <summary>Names of the devices that are there.</summary>
    public IReadOnlyList<string> AvailableDevices { get; } = availableDevices;
}
