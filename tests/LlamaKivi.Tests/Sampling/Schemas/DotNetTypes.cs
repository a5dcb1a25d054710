using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace LlamaKivi.Tests.Sampling.Schemas;

/// <summary>Types that programs deserialize answers to.</summary>
internal static class DotNetTypes
{
    public static readonly Type[] All =
    [
        typeof(bool), typeof(sbyte), typeof(byte), typeof(short), typeof(ushort), typeof(int), typeof(uint), typeof(long), typeof(ulong), typeof(Int128), typeof(UInt128),
        typeof(Half), typeof(float), typeof(double), typeof(decimal), typeof(int?), typeof(char), typeof(string), typeof(byte[]), typeof(Memory<byte>), typeof(Guid),
        typeof(DateTime), typeof(DateTimeOffset), typeof(DateOnly), typeof(TimeOnly), typeof(TimeSpan), typeof(TimeOnly?), typeof(Uri), typeof(Version),
        typeof(DayOfWeek), typeof(Small), typeof(Access), typeof(Small?), typeof(object), typeof(JsonElement), typeof(JsonNode), typeof(JsonObject), typeof(JsonArray),
        typeof(int[]), typeof(List<decimal?>), typeof(HashSet<Small>), typeof(Dictionary<string, byte>), typeof(Dictionary<int, string>), typeof(Dictionary<Guid, bool>),
        typeof(Dictionary<DateTime, TimeSpan>), typeof(Dictionary<sbyte, int[]>), typeof(KeyValuePair<string, ulong>), typeof(Tuple<byte, Uri>), typeof(Order), typeof(Tree),
        typeof(Shape), typeof(Annotated), typeof(Strict), typeof(Numbers), typeof(Dictionary<Small, Dictionary<string, DateOnly?>>),
    ];

    public enum Small : byte
    {
        None,
        One,
        Many = 200,
    }

    [Flags]
    public enum Access
    {
        None = 0,
        Read = 1,
        Write = 2,
    }

    public sealed record Order(
        [property: Range(1, 999)] int Number, string? Customer, DateTime Placed, DateOnly? Due, decimal Total, List<Line> Lines, Dictionary<string, string> Notes, bool Paid = false);

    public sealed record Line(Guid Product, short Count, [property: Range(0.0, double.MaxValue)] decimal Price, byte[]? Picture);

    public sealed record Tree(int Value, Tree? Left, Tree? Right, List<Tree> Others);

    [JsonDerivedType(typeof(Circle), "circle")]
    [JsonDerivedType(typeof(Square), "square")]
    public abstract record Shape(string Name);

    public sealed record Circle(string Name, double Radius) : Shape(Name);

    public sealed record Square(string Name, byte Side, Shape[]? Inner) : Shape(Name);

    public sealed class Annotated
    {
        [EmailAddress]
        public required string Mail { get; set; }

        [Url]
        public string? Site { get; set; }

        [Base64String]
        public string? Data { get; set; }

        [RegularExpression("^[A-Z]{3}-\\d{2,4}$")]
        [StringLength(7)]
        public string Code { get; set; } = "";

        [Length(1, 3)]
        public int[] Some { get; set; } = [];

        [AllowedValues("x", "y")]
        public string Choice { get; set; } = "";

        [DeniedValues("x", null)]
        public string Other { get; set; } = "";

        [Range(typeof(DateTime), "2020-01-01", "2021-01-01")]
        public DateTime When { get; set; }

        [Range(0.5, double.MaxValue, MinimumIsExclusive = true)]
        public double Positive { get; set; }

        [MaxLength(20_000)]
        public string? Text { get; set; }

        [MinLength(1)]
        public Dictionary<string, int>? Counts { get; set; }

        [JsonNumberHandling(JsonNumberHandling.AllowNamedFloatingPointLiterals)]
        public double Any { get; set; }
    }

    [JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
    public sealed class Strict
    {
        public required byte A { get; set; }

        public ushort? B { get; set; }

        public Small C { get; set; }

        public TimeSpan[]? D { get; set; }
    }

    /// <summary>Every type with bounds as a property, which attributes can reach.</summary>
    public sealed record Numbers(
        sbyte A, byte B, short C, ushort D, int E, uint F, long G, ulong H, Half I, float J, double K, decimal L, byte? M, byte[] N, Int128 O, char P);
}
