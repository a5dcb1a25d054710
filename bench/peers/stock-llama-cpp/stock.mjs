// Measures stock llama.cpp: node stock.mjs MODEL THREADS TYPES DEPTHS N_PROMPT N_GEN; prints a JSON array of
// {kv_cache, test, tokens_per_second}. One warm-up of every test, then one run.
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const [path, threads, types, depths, nPrompt, nGen] = process.argv.slice(2);
const prompt = Number(nPrompt);
const generate = Number(nGen);

const llama = await getLlama({ gpu: false, build: "never", maxThreads: Number(threads), logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: path });
const vocabulary = model.tokenize("The quick brown fox jumps over the lazy dog and finds 17 reasons to write a test.");
const tokens = (n) => Array.from({ length: n }, (_, i) => vocabulary[(i * 7) % vocabulary.length]);
const rows = [];

for (const type of types.split(",")) {
    for (const depth of depths.split(",").map(Number)) {
        const context = await model.createContext({
            contextSize: depth + prompt + generate + 64,
            batchSize: 512,
            threads: { ideal: Number(threads), min: Number(threads) },
            flashAttention: true,
            experimentalKvCacheKeyType: type.toUpperCase(),
            experimentalKvCacheValueType: type.toUpperCase(),
        });
        const sequence = context.getSequence();
        if (depth > 0) {
            await sequence.evaluateWithoutGeneratingNewTokens(tokens(depth));
        }
        const back = () => sequence.eraseContextTokenRanges([{ start: depth, end: sequence.nextTokenIndex }]);
        const tests = {
            [`pp${prompt}`]: [prompt, () => sequence.evaluateWithoutGeneratingNewTokens(tokens(prompt))],
            [`tg${generate}`]: [generate, async () => {
                let n = 0;
                for await (const _ of sequence.evaluate(tokens(1), { temperature: 0, yieldEogToken: true })) {
                    if (++n === generate) {
                        break;
                    }
                }
            }],
        };
        for (const [name, [n, run]] of Object.entries(tests)) {
            await run();
            await back();
            const start = performance.now();
            await run();
            const seconds = (performance.now() - start) / 1000;
            await back();
            rows.push({ kv_cache: type, test: depth > 0 ? `${name} @ d${depth}` : name, tokens_per_second: n / seconds });
        }
        await context.dispose();
    }
}

console.log(JSON.stringify(rows));
process.exit(0);
