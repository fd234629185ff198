"""`halffull engine` as a process: readiness, and both ways to take SIGTERM."""

import http.client
import json
import shutil
import signal
import ssl
import subprocess
import threading

import pytest

from simulated_engines import engine_process

pytestmark = pytest.mark.uncompiled

LONG = {"model": "tiny", "prompt": "x", "max_tokens": 100_000, "ignore_eos": True}


class Stream:
    """A streamed answer, read line by line."""

    def __init__(self, port, body):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        sent = json.dumps(body | {"stream": True})
        self._connection.request("POST", "/v1/completions", sent, {"content-type": "application/json"})
        self._answer = self._connection.getresponse()

    def event(self):
        line = self._answer.readline()
        return line[6:].strip().decode() if self._answer.readline() == b"\n" else None

    def rest(self):
        events = []
        while (event := self.event()) is not None:
            events.append(event)
        return events

    def silent_for(self, seconds):
        self._connection.sock.settimeout(seconds)
        try:
            while self._answer.readline():
                pass
        except TimeoutError:
            return True
        return False

    def close(self):
        self._answer.close()
        self._connection.close()


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, json.dumps(body) if body else None, {"content-type": "application/json"})
    answer = connection.getresponse()
    document = answer.read()
    connection.close()
    return answer.status, document


def test_it_says_where_it_serves(tmp_path):
    with engine_process(tmp_path, "--profile", "h100", "--served-model-name", "m", "alias") as engine:
        assert engine.process.stdout.readline() == f"halffull engine: serving {engine.url}\n"
        ready = json.loads((tmp_path / "ready.json").read_text())
        assert ready == {"port": engine.port, "pid": engine.process.pid}
        assert ask(engine.port, "GET", "/health") == (200, b"")
        models = json.loads(ask(engine.port, "GET", "/v1/models")[1])["data"]
        assert [card["id"] for card in models] == ["m", "alias"]
        engine.process.send_signal(signal.SIGINT)
        assert engine.process.wait(30) == 0


def test_sigterm_ends_answers_with_reason_abort(tmp_path):
    with engine_process(tmp_path) as engine:
        stream = Stream(engine.port, LONG)
        plain: list[bytes] = []
        thread = threading.Thread(target=lambda: plain.append(ask(engine.port, "POST", "/v1/completions", LONG)[1]))
        thread.start()
        while b'finished_reason="abort"' not in (text := ask(engine.port, "GET", "/metrics")[1]) or not _running(
            text, 2
        ):
            stream.event()
        engine.process.terminate()
        *_, last, done = stream.rest()
        assert json.loads(last)["choices"][0]["finish_reason"] == "abort"
        assert done == "[DONE]"
        thread.join(30)
        assert json.loads(plain[0])["choices"][0]["finish_reason"] == "abort"
        assert engine.process.wait(30) == 0
        stream.close()


def _running(exposition, count):
    return f'vllm:num_requests_running{{engine="0",model_name="tiny"}} {count}.0'.encode() in exposition


def test_sigterm_with_a_shutdown_timeout_finishes_what_is_in_flight_and_aborts_what_comes(tmp_path):
    with engine_process(tmp_path, "--shutdown-timeout", "60", "--speedup", "2") as engine:
        stream = Stream(engine.port, LONG | {"max_tokens": 400})
        stream.event()
        engine.process.terminate()
        new = {"finish_reason": None}
        while new["finish_reason"] != "abort":  # until the signal has arrived
            short = ask(engine.port, "POST", "/v1/completions", LONG | {"max_tokens": 1})
            new = json.loads(short[1])["choices"][0]
        assert short[0] == 200
        assert new["text"] == ""
        assert ask(engine.port, "GET", "/health")[0] == 200
        *_, last, done = stream.rest()
        assert json.loads(last)["choices"][0]["finish_reason"] == "length"
        assert done == "[DONE]"
        assert engine.process.wait(30) == 0
        stream.close()


def test_a_mute_engine_keeps_connections_open_and_silent_until_clients_go(tmp_path):
    with engine_process(tmp_path, "--mute-on-sigterm") as engine:
        stream = Stream(engine.port, LONG)
        stream.event()
        engine.process.terminate()
        assert stream.silent_for(1.0)
        with pytest.raises(ConnectionRefusedError):
            ask(engine.port, "GET", "/health")
        assert engine.process.poll() is None
        stream.close()
        assert engine.process.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--max-model-len", "500000"), "--max-model-len"),
        (("--max-num-seqs", "300", "--max-num-batched-tokens", "200"), "--max-num-batched-tokens"),
    ],
)
def test_options_that_cannot_be_are_named(options, named, capsys):
    from halffull import cli

    assert cli.main(["engine", "--port", "0", *options]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not installed")
def test_it_serves_https_with_a_certificate(tmp_path):
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=engine", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with engine_process(tmp_path, "--ssl-certfile", certificate, "--ssl-keyfile", key) as engine:
        trust = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", engine.port, timeout=60, context=trust)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
        assert engine.process.stdout.readline().startswith("halffull engine: serving https://127.0.0.1:")


@pytest.mark.parametrize(
    "wrong", [("--speedup", "0"), ("--kv-tokens", "-1"), ("--busy-form", "loud"), ("--profile", "b")]
)
def test_values_that_cannot_be_are_refused(wrong, capsys):
    from halffull import cli

    with pytest.raises(SystemExit):
        cli.main(["engine", *wrong])
    assert wrong[0] in capsys.readouterr().err
