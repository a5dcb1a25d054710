// Sends 1, 4, 16 and 64 concurrent requests to LlamaKivi's server over HTTP and to stock llama.cpp in process:
// node compare.mjs MODEL [rounds] [threads]. The programs take turns; prints medians. Stock runs with 1 to `threads` threads, and its best
// median is reported, because its threads spin while they wait, which is slow on shared cores; a number of threads whose warm-up with one
// count of requests takes longer than LIMIT seconds is left out. COUNTS, PROMPT and GENERATE change the requests.
// LLAMA_KIVI names the program (default: the release build of this repository).
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const [model, rounds = "7", threads = "2"] = process.argv.slice(2);
if (!model || !existsSync(model)) {
    console.error(`usage: node compare.mjs MODEL [rounds] [threads]; ${model ? `${model} does not exist` : "no model given"}`);
    process.exit(2);
}
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const ours = process.env.LLAMA_KIVI?.split(" ") ?? ["dotnet", here("../../../src/LlamaKivi.Cli/bin/Release/net10.0/llama-kivi.dll")];
const counts = (process.env.COUNTS ?? "1,4,16,64").split(",").map(Number);
const promptLength = Number(process.env.PROMPT ?? 64);
const generate = Number(process.env.GENERATE ?? 64);
const limit = Number(process.env.LIMIT ?? 120) * 1000;
const types = ["f16", "kivi2"];
const children = [];
process.on("exit", () => children.forEach((child) => child.kill()));

const start = (program, args) => {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    children.push(child);
    return child;
};

async function startStock(n) {
    const child = start("node", [here("stock.mjs"), model, String(n)]);
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const run = async (request) => {
        child.stdin.write(`${JSON.stringify(request)}\n`);
        return JSON.parse((await lines.next()).value);
    };
    return Object.assign(run, { child });
}

async function startServer(type, port) {
    const most = Math.max(...counts);
    start(ours[0], [...ours.slice(1), "serve", "-m", model, "--port", String(port), "-np", String(most), "-t", threads, "-ngl", "0",
        "-c", String(2 * most * (promptLength + generate + 16)), "-ctk", type, "-ctv", type]).stdout.resume();
    for (let i = 0; ; i++) {
        try {
            if ((await fetch(`http://127.0.0.1:${port}/health`)).ok) {
                break;
            }
        } catch {
            if (i > 600) {
                throw new Error("The server does not start.");
            }
        }
        await new Promise((wait) => setTimeout(wait, 100));
    }
    return async ({ prompts }) => {
        const begin = performance.now();
        const runs = await Promise.all(prompts.map(async (prompt) => {
            const response = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
                method: "POST",
                headers: { "Content-Type": "application/json" },
                body: JSON.stringify({ prompt, max_tokens: generate, temperature: 0, stream: true, stream_options: { include_usage: true } }),
            });
            let [text, first] = ["", 0];
            for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
                first ||= performance.now() - begin;
                text += piece;
            }
            const usage = [...text.matchAll(/"completion_tokens":(\d+)/g)].at(-1);
            if (!usage) {
                throw new Error(`The server answered ${response.status}: ${text.slice(0, 300)}`);
            }
            return { tokens: Number(usage[1]), first };
        }));
        return { seconds: (performance.now() - begin) / 1000, tokens: runs.reduce((sum, run) => sum + run.tokens, 0), first: runs.map((run) => run.first / 1000) };
    };
}

const programs = new Map();
for (let n = 1; n <= Number(threads); n++) {
    programs.set(`stock ${n}`, await startStock(n));
}
for (const [i, type] of types.entries()) {
    programs.set(type, await startServer(type, 8100 + i));
}
const words = await programs.get("stock 1")({ text: "The quick brown fox jumps over the lazy dog and finds 17 reasons to write a test about rivers, letters and old maps." });
// All prompts of a run differ, so that no prefix cache helps.
let made = 0;
const prompts = (n) => Array.from({ length: n }, () => {
    made++;
    return Array.from({ length: promptLength }, (_, i) => words[(i * 7 + made * 3 + ((made >> (i % 12)) & 1) * 5) % words.length]);
});

const within = (ms, work) => {
    let timer;
    work.catch(() => {});  // it ends with its program
    const late = new Promise((done) => (timer = setTimeout(done, ms)));
    return Promise.race([work, late]).finally(() => clearTimeout(timer));
};
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const results = new Map();
for (let round = 0; round <= Number(rounds); round++) {
    console.error(round === 0 ? "warming up" : `round ${round} of ${rounds}`);
    for (const n of counts) {
        const request = { prompts: prompts(n), generate };
        for (const [name, run] of programs) {
            const result = await (round === 0 && name.startsWith("stock") ? within(limit, run(request)) : run(request));
            if (!result) {
                console.error(`${name}: left out, ${n} requests took longer than ${limit / 1000} s`);
                run.child.kill("SIGKILL");
                programs.delete(name);
                continue;
            }
            const { seconds, tokens, first } = result;
            if (round > 0) {  // the first round warms up
                const key = `${name}|${n}`;
                results.set(key, [...(results.get(key) ?? []), { speed: tokens / seconds, first: median(first) * 1000 }]);
            }
        }
    }
}

const cell = (name, n) => {
    const runs = results.get(`${name}|${n}`);
    return { speed: median(runs.map((run) => run.speed)), first: median(runs.map((run) => run.first)) };
};
const show = ({ speed, first }) => `${speed.toFixed(0)} (${first.toFixed(0)})`;
console.log(`${model.split("/").at(-1)}, prompts of ${promptLength} tokens, at most ${generate} generated, ${threads} threads, ${rounds} rounds in turns; tokens per second (ms to the first token, median of the requests)\n`);
console.log(`| requests at once | stock llama.cpp, f16 | ${types.map((type) => `LlamaKivi's server, ${type}`).join(" | ")} |`);
console.log(`|---|${"---:|".repeat(types.length + 1)}`);
for (const n of counts) {
    const stock = [...programs.keys()].filter((name) => name.startsWith("stock")).map((name) => ({ ...cell(name, n), threads: name.slice(6) }));
    const best = stock.reduce((best, one) => (one.speed > best.speed ? one : best), { speed: 0 });
    console.log(`| ${n} | ${best.threads ? `${show(best)}, ${best.threads} thread${best.threads === "1" ? "" : "s"}` : "too slow"} | ${types.map((type) => show(cell(type, n))).join(" | ")} |`);
}
process.exit(0);
