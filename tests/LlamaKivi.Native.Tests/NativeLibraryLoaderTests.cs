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
        Assert.Contains(NativeLibraryLoader.DirectoryVariable, e.Message, StringComparison.Ordinal);
        Assert.IsType<RuntimeError>(e, exactMatch: false);
    }

    [Theory]
    [InlineData("linux-x64", "dotnet add package LlamaKivi.Backend.Cpu", true)]
    [InlineData("win-x64", "dotnet add package LlamaKivi.Backend.Cpu", true)]
    [InlineData("linux-musl-x64", "linux-musl-x64 is not supported: the engine needs glibc", true)]
    [InlineData("linux-musl-x64", "dotnet add package", false)]
    public void A_missing_backend_names_the_package_to_add_or_why_there_is_none(string rid, string text, bool isThere) =>
        Assert.Equal(isThere, NativeLibraryNotFoundException.Remedy(rid).Contains(text, StringComparison.Ordinal));

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
    }
}
