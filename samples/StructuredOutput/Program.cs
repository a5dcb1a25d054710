// Generates JSON that always conforms to a schema, with any model. Usage: StructuredOutput MODEL.gguf [SENTENCE]
using System.Text.Json;
using LlamaKivi;
using LlamaKivi.Common;
using LlamaKivi.Sampling;

const string Schema = """
    {
      "type": "object",
      "properties": {
        "name": { "type": "string", "maxLength": 40 },
        "year": { "type": "integer" },
        "topics": { "type": "array", "items": { "enum": ["history", "science", "art", "computing"] }, "minItems": 1, "maxItems": 3 }
      },
      "required": ["name", "year", "topics"],
      "additionalProperties": false
    }
    """;

string sentence = args.Length > 1 ? args[1] : "Grace Hopper wrote one of the first compilers in 1952.";
var parameters = new ModelParams(args[0]) { ContextSize = 1024 };
using LLamaWeights weights = await LLamaWeights.LoadFromFileAsync(parameters);
var executor = new StatelessExecutor(weights, parameters);
var inference = new InferenceParams
{
    MaxTokens = 200,
    SamplingPipeline = new GreedySamplingPipeline { Grammar = Grammar.FromJsonSchema(Schema) },
};

var json = new System.Text.StringBuilder();
string prompt = $$"""
    Sentence: In 1843 Ada Lovelace published the first program for a machine.
    As JSON: {"name":"Ada Lovelace","year":1843,"topics":["computing","history"]}

    Sentence: {{sentence}}
    As JSON: 
    """;
await foreach (string text in executor.InferAsync(prompt, inference))
{
    json.Append(text);
}

using JsonDocument document = JsonDocument.Parse(json.ToString());
JsonElement root = document.RootElement;
Console.WriteLine($"name:   {root.GetProperty("name").GetString()}");
Console.WriteLine($"year:   {root.GetProperty("year").GetRawText()}");
Console.WriteLine($"topics: {string.Join(", ", root.GetProperty("topics").EnumerateArray().Select(topic => topic.GetString()))}");
