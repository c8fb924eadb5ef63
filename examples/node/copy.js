// Copies twenty random vectors through a served network. Neither stubs nor a build are needed: the
// API is read from its .proto file.
//
//   cd examples/node && npm install && node copy.js localhost:50051
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const proto = new URL("../../proto/", import.meta.url).pathname;
const definition = loader.loadSync("ntm/v1/ntm.proto", { includeDirs: [proto] });
const { NtmService } = grpc.loadPackageDefinition(definition).ntm.v1;

const address = process.argv[2] || "localhost:50051";
const client = new NtmService(address, grpc.credentials.createInsecure());
const call = (method, request) =>
  promisify(client[method].bind(client))(request).catch((error) => {
    const why = error.details.replace(/ Resolution note: $/, "");
    console.error(`${method} failed at ${address}: ${why}`);
    process.exit(1);
  });

// 20 vectors of 8 bits, a delimiter in input 8, and 20 steps to answer in: [41, 9] values, row by row.
const vectors = Array.from({ length: 20 * 8 }, () => Math.round(Math.random()));
const inputs = new Float32Array(41 * 9);
vectors.forEach((bit, index) => (inputs[Math.floor(index / 8) * 9 + (index % 8)] = bit));
inputs[20 * 9 + 8] = 1;

const { session } = await call("createSession", { model: "copy-ntm-lstm" });
// The session states how many steps the server takes at once.
const atOnce = Number(session.limits.maxChunkSteps);
const rows = [];
for (let step = 0; step < 41; step += atOnce) {
  // Float32Array has the byte order of the machine; the API's is little-endian, as all common machines' is.
  const chunk = Buffer.from(inputs.slice(step * 9, (step + atOnce) * 9).buffer);
  const { reply } = await call("step", { chunk: { sessionId: session.id, firstStep: step, inputs: chunk } });
  rows.push(reply.outputs);
}
await call("deleteSession", { sessionId: session.id });

const bytes = Buffer.concat(rows);
const outputs = Array.from({ length: 41 * 8 }, (_, index) => bytes.readFloatLE(index * 4));
const answers = outputs.slice(21 * 8).map((value) => (value > 0.5 ? 1 : 0));
console.log("wrong bits:", answers.filter((bit, index) => bit !== vectors[index]).length);
client.close();
