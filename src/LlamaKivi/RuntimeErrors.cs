using LlamaKivi.Native;

namespace LlamaKivi.Exceptions;

/// <summary>A batch could not be decoded.</summary>
public class LLamaDecodeError(DecodeResult returnCode) : RuntimeError($"The batch was not decoded: {returnCode}.")
{
    /// <summary>What decoding returned.</summary>
    public DecodeResult ReturnCode { get; } = returnCode;
}

/// <summary>There is no chat template.</summary>
public class MissingTemplateException : RuntimeError
{
    /// <summary>Makes the exception with a general message.</summary>
    public MissingTemplateException()
        : base("There is no chat template; give one.")
    {
    }

    /// <summary>Makes the exception.</summary>
    public MissingTemplateException(string message)
        : base(message)
    {
    }
}

/// <summary>The model has no chat template of a name, or none at all.</summary>
public class TemplateNotFoundException(string name) : RuntimeError(name == Default
    ? "The model's file has no chat template (tokenizer.chat_template); give one."
    : $"The model's file has no chat template '{name}' (tokenizer.chat_template.{name}).")
{
    // The name of the one without a name.
    internal const string Default = "default template";
}

/// <summary>Logits were asked for that were not computed.</summary>
public class GetLogitsInvalidIndexException(int index) : RuntimeError($"There are no logits at index {index}: they were not asked for.")
{
    /// <summary>The index.</summary>
    public int Index { get; } = index;
}

/// <summary>A device that a model is to be loaded to is not there.</summary>
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
