// What Node's parsers make of forms: a list of {type, body} (base64) in, of {parser: entries or null}
// out.
// An entry is [name, text], or [name, {size}] of a file; what is nested has brackets in its name.
import { readFileSync } from 'node:fs'
import querystring from 'node:querystring'
import { Readable } from 'node:stream'
import formidable from 'formidable'
import multer from 'multer'
import qs from 'qs'

function flat(value, name, into) {
  if (Array.isArray(value)) value.forEach((one) => flat(one, name, into))
  else if (value !== null && typeof value === 'object')
    for (const key of Object.keys(value)) flat(value[key], name === null ? key : `${name}[${key}]`, into)
  else if (value !== null && value !== undefined) into.push([name, String(value)])
  return into
}

const request = (type, body) =>
  Object.assign(Readable.from([body]), {
    method: 'POST',
    headers: { 'content-type': type, 'content-length': String(body.length) },
  })

const ofMulter = (type, body) =>
  new Promise((done, fail) => {
    const asked = request(type, body)
    multer().any()(asked, {}, (error) => {
      if (error) return fail(error)
      const files = (asked.files ?? []).map((file) => [file.fieldname, { size: file.size }])
      done([...flat(asked.body ?? {}, null, []), ...files])
    })
  })

// Some forms end a server that uses formidable.
let crashed = () => {}
process.on('uncaughtException', (error) => crashed(error))

async function ofFormidable(type, body) {
  const form = formidable({ allowEmptyFiles: true, minFileSize: 0 })
  const crash = new Promise((_, fail) => (crashed = fail))
  const [fields, files] = await Promise.race([form.parse(request(type, body)), crash])
  const entries = Object.entries(files).flatMap(([name, all]) => all.map((f) => [name, { size: f.size }]))
  return [...flat(fields, null, []), ...entries]
}

async function ofFetch(type, body) {
  const form = await new Response(body, { headers: { 'content-type': type } }).formData()
  return [...form].map(([name, value]) => [name, typeof value === 'string' ? value : { size: value.size }])
}

const urlencoded = {
  qs: (type, body) => flat(qs.parse(body.toString()), null, []),
  querystring: (type, body) => flat({ ...querystring.parse(body.toString()) }, null, []),
  fetch: ofFetch,
}
const multipart = { multer: ofMulter, formidable: ofFormidable, fetch: ofFetch }

const out = []
for (const { type, body } of JSON.parse(readFileSync(0))) {
  const found = {}
  for (const [name, parse] of Object.entries(type.startsWith('multipart') ? multipart : urlencoded))
    try {
      found[name] = await parse(type, Buffer.from(body, 'base64'))
    } catch {
      found[name] = null
    }
  out.push(found)
}
process.stdout.write(JSON.stringify(out), () => process.exit(0))
