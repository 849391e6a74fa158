import axios from "axios";

const answer = await axios.get(process.argv[2]);
console.log(JSON.stringify(answer.data));
