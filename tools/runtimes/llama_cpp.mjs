// Greedy text from GGUF files in llama.cpp: jobs as JSON on standard input, [{file, text, count}], answers as JSON on standard output.
// An answer holds the tokens of the text and those that follow it, or an error. Started by tests and by tools/runtimes.py.
import fs from "node:fs";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const jobs = JSON.parse(fs.readFileSync(0, "utf8"));
const said = [];
const llama = await getLlama({
    gpu: false, build: "never", usePrebuiltBinaries: true, maxThreads: 1, logLevel: LlamaLogLevel.warn,
    logger: (level, message) => said.push(message)
});

async function answer({file, text, count}) {
    said.length = 0;
    const model = await llama.loadModel({modelPath: file, useMmap: false, checkTensors: true});
    try {
        const context = await model.createContext({contextSize: 256, batchSize: 256, threads: 1, flashAttention: false});
        const sequence = context.getSequence();
        const prompt = model.tokenize(text);
        if (model.tokens.shouldPrependBosToken) prompt.unshift(model.tokens.bos);
        const tokens = [];
        if (count > 0)
            for await (const token of sequence.evaluate(prompt, {temperature: 0, yieldEogToken: true})) {
                tokens.push(token);
                if (tokens.length >= count || model.isEogToken(token)) break;
            }
        return {prompt, tokens};
    } finally {
        await model.dispose();
    }
}

const answers = [];
for (const job of jobs) {
    try {
        answers.push(await answer(job));
    } catch (error) {
        answers.push({error: `${error.message}: ${said.slice(0, 4).join(" ").trim()}`});
    }
}
process.stdout.write(JSON.stringify(answers));
await llama.dispose();
