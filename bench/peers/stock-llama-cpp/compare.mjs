// Compares stock llama.cpp and LlamaKivi in one run: node compare.mjs MODEL [rounds] [threads] [depths].
// Rounds alternate between the two; prints the medians and LlamaKivi's ratio to stock's best. Stock runs with every number of
// threads up to the given one and the best counts: its threads spin while waiting, so on shared cores two threads can be ten
// times slower than one.
// LLAMA_KIVI names the program (default: the release build of this repository).
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const [model, rounds = "3", threads = "2", depths = "0,3072"] = process.argv.slice(2);
if (!model || !existsSync(model)) {
    console.error(`usage: node compare.mjs MODEL [rounds] [threads] [depths]; ${model ? `${model} does not exist` : "no model given"}`);
    process.exit(2);
}
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const sizes = ["512", "128"];
const stockTypes = "f16,q8_0,q4_0";
const ourTypes = "f16,q8_0,q4_0,kivi4,kivi2";
const ours = process.env.LLAMA_KIVI?.split(" ") ?? ["dotnet", here("../../../src/LlamaKivi.Cli/bin/Release/net10.0/llama-kivi.dll")];

const run = (program, args) => JSON.parse(execFileSync(program, args, { encoding: "utf8", maxBuffer: 1 << 26, stdio: ["ignore", "pipe", "inherit"] }));
const results = { stock: new Map(), ours: new Map() };
const record = (map, rows, n = "") => rows.forEach((row) => {
    const key = `${row.kv_cache}|${row.test}|${n}`;
    map.set(key, [...(map.get(key) ?? []), row.tokens_per_second]);
});
let cpu = "";
for (let round = 0; round < Number(rounds); round++) {
    for (let n = 1; n <= Number(threads); n++) {
        record(results.stock, run("node", [here("stock.mjs"), model, String(n), stockTypes, depths, ...sizes]), n);
    }
    const rows = run(ours[0], [...ours.slice(1), "bench", "-m", model, "-t", threads, "-p", sizes[0], "-n", sizes[1], "-d", depths,
        "-r", "1", "--kv-cache", ourTypes, "--json"]);
    cpu = rows[0].processor;
    record(results.ours, rows);
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const tests = depths.split(",").flatMap((d) => [`pp${sizes[0]}`, `tg${sizes[1]}`].map((t) => (d === "0" ? t : `${t} @ d${d}`)));
console.log(`${model.split("/").at(-1)}, ${threads} threads, ${rounds} rounds in turns, ${cpu}\n`);
console.log(`| test | ${stockTypes.split(",").map((t) => `stock ${t}`).join(" | ")} | ${ourTypes.split(",").map((t) => `${t} (of stock's best)`).join(" | ")} |`);
console.log(`|---|${"---:|".repeat(stockTypes.split(",").length + ourTypes.split(",").length)}`);
for (const test of tests) {
    const counts = Array.from({ length: Number(threads) }, (_, i) => i + 1);
    const stock = stockTypes.split(",").map((t) => Math.max(...counts.map((n) => median(results.stock.get(`${t}|${test}|${n}`)))));
    const best = Math.max(...stock);
    const cells = ourTypes.split(",").map((t) => {
        const speed = median(results.ours.get(`${t}|${test}|`));
        return `${speed.toFixed(0)} (${(speed / best).toFixed(2)}x)`;
    });
    console.log(`| ${test} | ${stock.map((s) => s.toFixed(0)).join(" | ")} | ${cells.join(" | ")} |`);
}
