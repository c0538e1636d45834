// JavaScript clients, unchanged, against the server at ZONDA_URL. `clients.py` runs this, where they are installed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const { ZONDA_URL: URL, ZONDA_KEY: KEY, ZONDA_MODEL: MODEL, ZONDA_MODULES: MODULES } = process.env
const SCRIPTED = MODEL === 'scripted'
const require = createRequire(`${MODULES}/package.json`)
const load = name => import(pathToFileURL(require.resolve(name)))
const { default: OpenAI } = await load('openai')
const { default: Anthropic } = await load('@anthropic-ai/sdk')
const { z } = await load('zod')
const ai = await load('ai')
const { createOpenAI } = await load('@ai-sdk/openai')
const { createOpenAICompatible } = await load('@ai-sdk/openai-compatible')
const { createAnthropic } = await load('@ai-sdk/anthropic')

const QUESTION = 'How is the weather in Paris?'
const OUTPUT = '21 degrees in Paris'
const LIMIT = 700
const SCHEMA = {
  type: 'object', properties: { city: { enum: ['Paris', 'Rome'] } }, required: ['city'], additionalProperties: false,
}
const Weather = z.object({ city: z.enum(['Paris', 'Rome']), degrees: z.number().int() })
const user = content => [{ role: 'user', content }]
const told = text => SCRIPTED ? assert.equal(text, `It is ${OUTPUT}.`) : assert.equal(typeof text, 'string')
const found = value => SCRIPTED ? assert.deepEqual(value, { city: 'Paris', degrees: 21 }) : Weather.parse(value)
// ends the text of a small model early: clients take one that was cut for an error
const brief = choice => !SCRIPTED && choice === 'none' ? { stop: [' ', '\n'] } : {}
const scripted = { skip: !SCRIPTED && 'needs the scripted model' }

const one = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0 })
const other = new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0 })

for (const streamed of [false, true]) {
  test(`openai: chat, a call and the answer, streamed ${streamed}`, async () => {
    const messages = user(QUESTION)
    const fields = {
      model: MODEL, max_tokens: LIMIT, messages,
      tools: [{ type: 'function', function: { name: 'weather', parameters: SCHEMA, strict: true } }],
    }
    const ask = choice => {
      const body = { ...fields, ...brief(choice), tool_choice: choice }
      return streamed
        ? one.chat.completions.stream({ ...body, stream_options: { include_usage: true } }).finalChatCompletion()
        : one.chat.completions.create(body)
    }
    const { message, finish_reason } = (await ask({ type: 'function', function: { name: 'weather' } })).choices[0]
    assert.equal(finish_reason, 'tool_calls')
    const [call] = message.tool_calls
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['city'])
    messages.push(message, { role: 'tool', tool_call_id: call.id, content: OUTPUT })
    const answer = await ask('none')
    told(answer.choices[0].message.content)
    assert(answer.usage.completion_tokens > 0)
  })

  test(`openai: responses, a call and the answer, streamed ${streamed}`, async () => {
    const ask = fields => {
      const body = {
        model: MODEL, max_output_tokens: LIMIT, ...fields, ...brief(fields.tool_choice),
        tools: [{ type: 'function', name: 'weather', parameters: SCHEMA, strict: true }],
      }
      return streamed ? one.responses.stream(body).finalResponse() : one.responses.create(body)
    }
    const first = await ask({ input: QUESTION, tool_choice: { type: 'function', name: 'weather' } })
    const output = { type: 'function_call_output', call_id: first.output[0].call_id, output: OUTPUT }
    const stored = await ask({ input: [output], previous_response_id: first.id, tool_choice: 'none' })
    const sent = await ask({ input: [...user(QUESTION), ...first.output, output], tool_choice: 'none', store: false })
    told(stored.output_text)
    told(sent.output_text)
  })

  test(`anthropic: a call and the answer, streamed ${streamed}`, async () => {
    const messages = user(QUESTION)
    const ask = choice => {
      const body = {
        model: MODEL, max_tokens: LIMIT, messages, tool_choice: choice,
        tools: [{ name: 'weather', input_schema: SCHEMA }],
      }
      return streamed ? other.messages.stream(body).finalMessage() : other.messages.create(body)
    }
    const answer = await ask({ type: 'tool', name: 'weather' })
    assert.equal(answer.stop_reason, 'tool_use')
    const result = { type: 'tool_result', tool_use_id: answer.content[0].id, content: OUTPUT }
    messages.push({ role: 'assistant', content: answer.content }, { role: 'user', content: [result] })
    told((await ask({ type: 'none' })).content[0].text)
  })
}

test('openai: runTools', scripted, async () => {
  const runner = one.chat.completions.runTools({
    model: MODEL, messages: user(QUESTION),
    tools: [{ type: 'function', function: { name: 'weather', parameters: SCHEMA, parse: JSON.parse, function: () => OUTPUT } }],
  })
  told(await runner.finalContent())
})

test('openai: parsed answers', async () => {
  const { zodResponseFormat, zodTextFormat } = await load('openai/helpers/zod')
  const chat = await one.chat.completions.parse({
    model: MODEL, messages: user(QUESTION), max_tokens: LIMIT, response_format: zodResponseFormat(Weather, 'weather'),
  })
  found(chat.choices[0].message.parsed)
  const response = await one.responses.parse({
    model: MODEL, input: QUESTION, max_output_tokens: LIMIT, text: { format: zodTextFormat(Weather, 'weather') },
  })
  found(response.output_parsed)
})

test('errors have their classes', async () => {
  const messages = user('Hi')
  const chat = (client, fields) => client.chat.completions.create({ model: MODEL, messages, ...fields })
  const say = (client, fields) => client.messages.create({ model: MODEL, messages, max_tokens: 4, ...fields })
  const long = { messages: user('word '.repeat(50_000)) }
  for (const [library, client, ask] of [[OpenAI, one, chat], [Anthropic, other, say]]) {
    await assert.rejects(ask(client.withOptions({ apiKey: 'wrong' })), library.AuthenticationError)
    await assert.rejects(ask(client, { model: 'no-such-model' }), library.NotFoundError)
    await assert.rejects(ask(client, long), error => error instanceof library.BadRequestError && /context/.test(error.message))
    await assert.rejects(ask(client, { temperature: 9 }), library.BadRequestError)
    if (SCRIPTED)
      await assert.rejects(ask(client, { messages: user('busy') }), error => error.headers.get('retry-after') === '7')
  }
  if (SCRIPTED) await assert.rejects(chat(one, { messages: user('busy') }), OpenAI.RateLimitError)
})

test('an answer that fails midway is an error', scripted, async () => {
  const drain = async stream => { for await (const _ of await stream); }
  const messages = user('count and fails')
  await assert.rejects(drain(one.chat.completions.create({ model: MODEL, messages, stream: true })), OpenAI.APIError)
  await assert.rejects(drain(other.messages.create({ model: MODEL, messages, max_tokens: 5000, stream: true })),
    Anthropic.APIError)
})

test('streams can be left', async () => {
  const streams = [
    await one.chat.completions.create({ model: MODEL, messages: user('count'), stream: true }),
    await one.responses.create({ model: MODEL, input: 'count', stream: true }),
    await other.messages.create({ model: MODEL, messages: user('count'), max_tokens: 500, stream: true }),
  ]
  for (const stream of streams) {
    for await (const _ of stream) break
    stream.controller.abort()
  }
  const answer = await one.chat.completions.create({ model: MODEL, messages: user('Hi'), max_tokens: 4 })
  assert(answer.choices[0].message.content)
})

const openai = createOpenAI({ baseURL: `${URL}/v1`, apiKey: KEY })
const compatible = createOpenAICompatible({
  name: 'zonda', baseURL: `${URL}/v1`, apiKey: KEY, includeUsage: true, supportsStructuredOutputs: true,
})
const models = {
  'openai chat': openai.chat(MODEL), 'openai responses': openai.responses(MODEL), compatible: compatible(MODEL),
  anthropic: createAnthropic({ baseURL: `${URL}/v1`, apiKey: KEY })(MODEL),
}
const weather = ai.tool({
  description: 'Tells the weather.', inputSchema: ai.jsonSchema(SCHEMA), execute: async () => OUTPUT,
})

for (const [name, model] of Object.entries(models)) {
  const options = {
    model, tools: { weather }, prompt: QUESTION, maxOutputTokens: LIMIT, maxRetries: 0, stopWhen: ai.stepCountIs(3),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? 'none' : 'required' }),
  }

  test(`ai sdk, ${name}: a call and the answer`, async () => {
    const whole = await ai.generateText(options)
    assert.equal(whole.steps.length, 2)
    told(whole.text)
    assert(whole.totalUsage.outputTokens > 0)
    const streamed = ai.streamText({ ...options, onError: ({ error }) => { throw error } })
    const kinds = new Set()
    for await (const part of streamed.fullStream) {
      if (part.type === 'error') throw part.error
      kinds.add(part.type)
    }
    assert(kinds.has('tool-call') && kinds.has('tool-result') && kinds.has('tool-input-delta'))
    told(await streamed.text)
    assert((await streamed.totalUsage).outputTokens > 0)
  })

  test(`ai sdk, ${name}: reasoning`, scripted, async () => {
    const providerOptions = {
      anthropic: { thinking: { type: 'enabled', budgetTokens: 1024 } },
      openai: { forceReasoning: true, reasoningSummary: 'auto' },
    }
    const asked = { ...options, prompt: `think: ${QUESTION}`, providerOptions, maxOutputTokens: 2000, prepareStep: undefined }
    if (name === 'anthropic') asked.toolChoice = 'auto'
    const whole = await ai.generateText(asked)
    told(whole.text)
    if (name !== 'openai chat') assert.match(whole.steps[0].reasoningText ?? '', /Hm/)
    const streamed = ai.streamText(asked)
    told(await streamed.text)
  })

  test(`ai sdk, ${name}: objects`, async () => {
    const asked = { model, schema: Weather, prompt: QUESTION, maxOutputTokens: LIMIT, maxRetries: 0 }
    found((await ai.generateObject(asked)).object)
    const streamed = ai.streamObject(asked)
    for await (const _ of streamed.partialObjectStream);
    found(await streamed.object)
    found((await ai.generateText({ ...asked, output: ai.Output.object({ schema: Weather }) })).output)
  })

  test(`ai sdk, ${name}: leaving and errors`, async () => {
    const controller = new AbortController()
    const streamed = ai.streamText({ model, prompt: 'count', maxOutputTokens: 2000, abortSignal: controller.signal })
    for await (const _ of streamed.textStream) { controller.abort(); break }
    if (SCRIPTED)
      await assert.rejects(ai.generateText({ model, prompt: 'busy', maxRetries: 0 }), error => error.isRetryable === true)
    if (name !== 'anthropic') // which lowers the temperature itself
      await assert.rejects(ai.generateText({ model, prompt: 'Hi', temperature: 9, maxRetries: 0 }),
        error => error.statusCode === 400)
  })
}
