using Xunit;

namespace LlamaKivi.Native.Tests;

public class GgufFileTests
{
    [Fact]
    public void Metadata_comes_as_managed_values()
    {
        using GgufFile file = GgufFile.Open(TestFiles.Model);

        Assert.Equal(3, file.Version);
        Assert.Equal(new FileInfo(TestFiles.Model).Length, file.FileSize);
        Assert.InRange(file.DataOffset, 1, file.FileSize);
        Assert.Equal("llama", file.GetString("general.architecture"));
        Assert.True(file.GetInteger("llama.block_count") > 0);
        Assert.True(file.GetNumber("llama.attention.layer_norm_rms_epsilon") is > 0 and < 1);
        Assert.Equal(file.Entries.Count, file.Entries.Select(entry => entry.Key).Distinct().Count());
    }

    [Fact]
    public void Every_entry_has_a_value_of_its_type_and_count()
    {
        using GgufFile file = GgufFile.Open(TestFiles.Model);
        Assert.NotEmpty(file.Entries);
        foreach (GgufEntry entry in file.Entries)
        {
            object? value = file.GetValue(entry.Key);
            Assert.NotNull(value);
            if (value is Array array)
            {
                Assert.Equal(GgufValueType.Array, entry.Type);
                Assert.Equal(entry.Count, array.LongLength);
            }
            else
            {
                Assert.Equal(entry.Type, entry.ElementType);
            }
        }
    }

    [Fact]
    public void The_vocabulary_is_an_array_of_strings()
    {
        using GgufFile file = GgufFile.Open(TestFiles.Model);
        string[]? tokens = file.GetStrings("tokenizer.ggml.tokens");
        Assert.NotNull(tokens);
        Assert.Equal(file.Entries.Single(entry => entry.Key == "tokenizer.ggml.tokens").Count, tokens.Length);
        Assert.All(tokens, token => Assert.NotEqual("", token));
        Assert.Equal(tokens.Length, file.GetArray<int>("tokenizer.ggml.token_type")?.Length);
    }

    [Fact]
    public void Absent_entries_and_other_types_are_null()
    {
        using GgufFile file = GgufFile.Open(TestFiles.Model);
        Assert.False(file.Contains("no.such.key"));
        Assert.Null(file.GetValue("no.such.key"));
        Assert.Null(file.GetString("llama.block_count"));
        Assert.Null(file.GetInteger("general.architecture"));
        Assert.Null(file.GetStrings("general.architecture"));
        Assert.Null(file.GetArray<float>("tokenizer.ggml.tokens"));
        Assert.Null(file.GetBool("general.architecture"));
    }

    [Fact]
    public void Tensors_lie_inside_the_file()
    {
        using GgufFile file = GgufFile.Open(TestFiles.Model);
        Assert.Contains(file.Tensors, tensor => tensor.Name == "token_embd.weight");
        foreach (GgufTensor tensor in file.Tensors)
        {
            Assert.NotNull(tensor.TypeName);
            Assert.InRange(tensor.Shape.Count, 1, 4);
            Assert.True(tensor.Size > 0);
            Assert.Equal(0, tensor.Offset % file.Alignment);
            Assert.InRange(file.DataOffset + tensor.Offset + tensor.Size, 1, file.FileSize);
        }
    }

    [Fact]
    public void A_text_file_is_refused()
    {
        using var folder = new TemporaryFolder();
        string path = folder.Write("text.gguf", "This is not a model."u8);
        var e = Assert.Throws<ModelLoadException>(() => GgufFile.Open(path));
        Assert.Equal(EngineStatus.BadFile, e.Status);
        Assert.NotEmpty(e.Message);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(24)]
    [InlineData(1000)]
    [InlineData(100_000)]
    [InlineData(5_000_000)]
    public void A_truncated_file_is_refused(int length)
    {
        using var folder = new TemporaryFolder();
        byte[] whole = File.ReadAllBytes(TestFiles.Model);
        string path = folder.Write("truncated.gguf", whole.AsSpan(0, length));
        Assert.Equal(EngineStatus.BadFile, Assert.Throws<ModelLoadException>(() => GgufFile.Open(path)).Status);
    }

    [Fact]
    public void A_missing_file_is_named()
    {
        using var folder = new TemporaryFolder();
        string path = Path.Combine(folder.Path, "mödel.gguf");
        var e = Assert.Throws<ModelLoadException>(() => GgufFile.Open(path));
        Assert.Equal(EngineStatus.IoError, e.Status);
        Assert.Contains("mödel.gguf", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_disposed_file_says_so()
    {
        GgufFile file = GgufFile.Open(TestFiles.Model);
        file.Dispose();
        Assert.Throws<ObjectDisposedException>(() => file.GetString("general.architecture"));
    }
}
