// Stock llama.cpp with its sequences in one batch, driven by compare.mjs: node stock.mjs MODEL THREADS. Reads lines of JSON {prompts, generate} and
// answers each with {seconds, tokens, first}: time until all texts are complete, number of generated tokens, and time to each text's first token.
import { createInterface } from "node:readline";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const [path, threads] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", maxThreads: Number(threads), logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: path });

for await (const line of createInterface({ input: process.stdin })) {
    const { text, prompts, generate } = JSON.parse(line);
    if (text) {
        console.log(JSON.stringify(model.tokenize(text)));
        continue;
    }
    const context = await model.createContext({
        contextSize: prompts[0].length + generate + 16,
        sequences: prompts.length,
        batchSize: 512,
        threads: { ideal: Number(threads), min: Number(threads) },
        flashAttention: true,
    });
    const sequences = prompts.map(() => context.getSequence());
    const start = performance.now();
    const runs = await Promise.all(prompts.map(async (prompt, i) => {
        let tokens = 0;
        let first = 0;
        for await (const _ of sequences[i].evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
            first ||= performance.now() - start;
            if (++tokens === generate) {
                break;
            }
        }
        return { tokens, first };
    }));
    const seconds = (performance.now() - start) / 1000;
    await context.dispose();
    console.log(JSON.stringify({ seconds, tokens: runs.reduce((sum, run) => sum + run.tokens, 0), first: runs.map((run) => run.first / 1000) }));
}
process.exit(0);
