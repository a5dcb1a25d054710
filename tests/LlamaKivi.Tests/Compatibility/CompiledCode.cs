using System.Reflection;
using System.Reflection.Emit;
using System.Reflection.Metadata;
using System.Reflection.Metadata.Ecma335;

namespace LlamaKivi.Tests;

/// <summary>The methods of an assembly with their source files and the methods that they use, read from IL and debug information.</summary>
internal static class CompiledCode
{
    private static readonly Dictionary<short, OpCode> OpCodeOf = typeof(OpCodes).GetFields(BindingFlags.Public | BindingFlags.Static)
        .Select(field => (OpCode)field.GetValue(null)!).ToDictionary(code => code.Value);

    /// <summary>Methods with a body in a source file, lambdas and state machines included. Code that the compiler or a source generator writes has no file.</summary>
    public static IEnumerable<(MethodBase Method, string File)> Methods(Assembly assembly)
    {
        using FileStream stream = File.OpenRead(Path.ChangeExtension(assembly.Location, ".pdb"));
        using MetadataReaderProvider provider = MetadataReaderProvider.FromPortablePdbStream(stream);
        MetadataReader symbols = provider.GetMetadataReader();
        foreach (MethodDebugInformationHandle handle in symbols.MethodDebugInformation)
        {
            MethodDebugInformation information = symbols.GetMethodDebugInformation(handle);
            DocumentHandle document = information.Document.IsNil
                ? information.GetSequencePoints().Select(point => point.Document).FirstOrDefault()
                : information.Document;
            if (document.IsNil)
            {
                continue;
            }

            string file = symbols.GetString(symbols.GetDocument(document).Name).Replace('\\', '/');
            if (!file.EndsWith(".g.cs", StringComparison.Ordinal))
            {
                yield return (assembly.ManifestModule.ResolveMethod(MetadataTokens.GetToken(handle.ToDefinitionHandle()))!, file);
            }
        }
    }

    /// <summary>Metadata tokens of the methods of its module that a method calls, or whose address it takes.</summary>
    public static IEnumerable<int> Uses(MethodBase method)
    {
        byte[] code = method.GetMethodBody()?.GetILAsByteArray() ?? [];
        Type[] typeArguments = method.DeclaringType is { IsGenericType: true } type ? type.GetGenericArguments() : [];
        Type[] methodArguments = method.IsGenericMethod ? method.GetGenericArguments() : [];
        for (int at = 0; at < code.Length;)
        {
            short value = code[at] == 0xfe ? (short)(0xfe00 | code[at + 1]) : code[at];
            OpCode operation = OpCodeOf[value];
            at += operation.Size;
            switch (operation.OperandType)
            {
                case OperandType.InlineMethod:
                    MethodBase used = method.Module.ResolveMethod(BitConverter.ToInt32(code, at), typeArguments, methodArguments)!;
                    at += 4;
                    if (used.Module == method.Module)
                    {
                        yield return used.MetadataToken;
                    }

                    break;
                case OperandType.InlineSwitch:
                    at += 4 + 4 * BitConverter.ToInt32(code, at);
                    break;
                case OperandType.InlineNone:
                    break;
                case OperandType.ShortInlineBrTarget or OperandType.ShortInlineI or OperandType.ShortInlineVar:
                    at += 1;
                    break;
                case OperandType.InlineVar:
                    at += 2;
                    break;
                case OperandType.InlineI8 or OperandType.InlineR:
                    at += 8;
                    break;
                default:
                    at += 4;
                    break;
            }
        }
    }
}
