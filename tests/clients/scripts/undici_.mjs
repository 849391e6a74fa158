import { request } from "undici";

const answer = await request(process.argv[2]);
console.log(await answer.body.text());
process.exitCode = answer.statusCode === 200 ? 0 : 1;
