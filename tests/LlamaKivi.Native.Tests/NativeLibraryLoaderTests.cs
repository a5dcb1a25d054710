using System.Buffers.Binary;
using LlamaKivi.Exceptions;
using Xunit;

namespace LlamaKivi.Native.Tests;

public class NativeLibraryLoaderTests
{
    [Fact]
    public void A_failed_load_lists_every_path_with_reason_and_remedy()
    {
        using var folder = new TemporaryFolder();
        string missing = Path.Combine(folder.Path, "missing.so");
        string text = folder.Write("text.so", "not a library"u8);

        var e = Assert.Throws<NativeLibraryNotFoundException>(() => NativeLibraryLoader.Load([missing, text]));

        Assert.Equal([missing, text], e.Attempts.Select(attempt => attempt.Path));
        Assert.Contains($"{missing}: no such file", e.Message, StringComparison.Ordinal);
        Assert.Contains($"{text}: ", e.Message, StringComparison.Ordinal);
        Assert.NotEmpty(e.Attempts[1].Reason);
        Assert.Contains($"platform {NativeEngine.Platform}", e.Message, StringComparison.Ordinal);
        Assert.Contains(NativeLibraryLoader.DirectoryVariable, e.Message, StringComparison.Ordinal);
        Assert.IsType<RuntimeError>(e, exactMatch: false);
    }

    [Theory]
    [InlineData("linux-x64", "linux-x64", "dotnet add package LlamaKivi.Backend.Cpu", true)]
    [InlineData("debian.12-x64", "linux-x64", "package for linux-x64: dotnet add package LlamaKivi.Backend.Cpu", true)]
    [InlineData("win-x64", "win-x64", "dotnet add package LlamaKivi.Backend.Cpu", true)]
    [InlineData("linux-musl-x64", "linux-x64", "linux-musl-x64 is not supported: the engine needs glibc", true)]
    [InlineData("linux-musl-x64", "linux-x64", "dotnet add package", false)]
    [InlineData("alpine.3.22-x64", "linux-x64", "alpine.3.22-x64 is not supported: the engine needs glibc", true)]
    [InlineData("win-x86", "win-x86", "win-x86 is not supported: there are engines for linux-x64, linux-arm64, win-x64", true)]
    [InlineData("win-x86", "win-x86", "Run the program as a 64-bit process", true)]
    [InlineData("win-x86", "win-x86", "dotnet add package", false)]
    [InlineData("win-arm64", "win-arm64", "runs programs published for win-x64", true)]
    public void A_missing_backend_names_the_package_to_add_or_why_there_is_none(string rid, string portable, string text, bool isThere) =>
        Assert.Equal(isThere, NativePlatform.Remedy(rid, portable, null).Contains(text, StringComparison.Ordinal));

    // With the variable, the library of a package is not tried: a package to add would not help.
    [Fact]
    public void A_wrong_folder_in_the_variable_is_named_with_its_variable()
    {
        string remedy = NativePlatform.Remedy("linux-x64", "linux-x64", "/no/such/folder");
        Assert.Contains("LLAMA_KIVI_NATIVE_DIR is set to /no/such/folder, so no other folder is tried", remedy, StringComparison.Ordinal);
        Assert.DoesNotContain("dotnet add package", remedy, StringComparison.Ordinal);

        using var folder = new TemporaryFolder();
        string file = folder.Write(NativeLibraryLoader.FileName, "x"u8);
        Assert.Contains("it names a file, not a folder", NativePlatform.Remedy("linux-x64", "linux-x64", file), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("ELF", 62, "linux-x64")]
    [InlineData("ELF", 183, "linux-arm64")]
    [InlineData("PE", 0x8664, "win-x64")]
    [InlineData("PE", 0x14C, "win-x86")]
    [InlineData("MachO", 0x100000C, "osx-arm64")]
    public void A_library_of_another_platform_is_refused_by_name(string format, int machine, string platform)
    {
        using var folder = new TemporaryFolder();
        string path = folder.Write("engine", Header(format, machine));

        Assert.Null(NativePlatform.Mismatch(path, platform));
        string other = platform == "linux-x64" ? "linux-arm64" : "linux-x64";
        Assert.Equal($"it is built for {platform}, and this process is {other}", NativePlatform.Mismatch(path, other));
        if (platform != NativePlatform.Portable)
        {
            var e = Assert.Throws<NativeLibraryNotFoundException>(() => NativeLibraryLoader.Load([path]));
            Assert.Contains($"library  {path}: it is built for {platform}", e.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void What_is_no_library_is_left_to_the_system_s_loader()
    {
        using var folder = new TemporaryFolder();
        Assert.Null(NativePlatform.Mismatch(folder.Write("short", "MZ"u8), "linux-x64"));
        Assert.Null(NativePlatform.Mismatch(folder.Write("bad", Header("PE", 0)), "linux-x64"));
        byte[] outside = Header("PE", 0x8664);
        outside.AsSpan(60, 4).Fill(0x7F);  // the header's offset lies outside the file
        Assert.Null(NativePlatform.Mismatch(folder.Write("outside", outside), "linux-x64"));
        Assert.Null(NativePlatform.Mismatch(folder.Path, "linux-x64"));
    }

    private static byte[] Header(string format, int machine)
    {
        byte[] header = new byte[256];
        switch (format)
        {
            case "ELF":
                "\u007fELF"u8.CopyTo(header);
                BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(18), (ushort)machine);
                break;
            case "PE":
                "MZ"u8.CopyTo(header);
                header[60] = 128;
                "PE\0\0"u8.CopyTo(header.AsSpan(128));
                BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(132), (ushort)machine);
                break;
            default:
                BinaryPrimitives.WriteUInt32LittleEndian(header, 0xFEEDFACF);
                BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(4), machine);
                break;
        }

        return header;
    }

    [Fact]
    public void The_folder_of_the_variable_is_the_only_one_tried()
    {
        using var folder = new TemporaryFolder();
        Assert.Equal([Path.Combine(folder.Path, NativeLibraryLoader.FileName)], NativeLibraryLoader.Candidates(folder.Path));
    }

    [Fact]
    public void The_output_folder_holds_the_library_where_the_loader_looks_first()
    {
        IReadOnlyList<string> candidates = NativeLibraryLoader.Candidates(null);
        Assert.True(File.Exists(candidates[0]), $"no {candidates[0]}");
        Assert.Contains(Path.Combine(AppContext.BaseDirectory, NativeLibraryLoader.FileName), candidates);
    }

    // A single-file program that carries native libraries unpacks them into a folder that only the host knows of.
    [Fact]
    public void Where_the_host_unpacked_a_single_file_program_is_looked_for_too()
    {
        const string Folders = "NATIVE_DLL_SEARCH_DIRECTORIES";
        object? before = AppContext.GetData(Folders);
        using var folder = new TemporaryFolder();
        try
        {
            AppContext.SetData(Folders, $"{folder.Path}/{Path.PathSeparator}{before}");
            string here = NativeLibraryLoader.Candidates(null)[0];
            string inside = Path.GetRelativePath(AppContext.BaseDirectory, here);
            Assert.Contains(Path.Combine(folder.Path, inside), NativeLibraryLoader.Candidates(null));
        }
        finally
        {
            AppContext.SetData(Folders, before);
        }
    }

    [Fact]
    public void Another_interface_version_is_refused_with_both_numbers()
    {
        uint other = NativeMethods.LK_ABI_VERSION + 7;
        var e = Assert.Throws<AbiMismatchException>(() => NativeLibraryLoader.CheckAbi(other, "/some/library.so"));

        Assert.Equal(NativeMethods.LK_ABI_VERSION, e.Expected);
        Assert.Equal(other, e.Found);
        Assert.Contains($"version {other}", e.Message, StringComparison.Ordinal);
        Assert.Contains($"version {NativeMethods.LK_ABI_VERSION}", e.Message, StringComparison.Ordinal);
        Assert.Contains("/some/library.so", e.Message, StringComparison.Ordinal);
        Assert.Contains("LlamaKivi.Backend.Cpu", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_library_without_an_interface_version_is_not_called_an_old_one()
    {
        var e = Assert.Throws<AbiMismatchException>(() => NativeLibraryLoader.CheckAbi(0, "/some/library.so"));
        Assert.Contains("/some/library.so has no interface version: it is not LlamaKivi's engine", e.Message, StringComparison.Ordinal);
    }
}
