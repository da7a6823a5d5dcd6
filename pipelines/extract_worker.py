"""The child process of `Extractor`: pages from standard input, answers to standard output.

A page that uses up its processor time ends the process by SIGPROF, whose default action also interrupts code
that never returns to Python; a page that uses up the memory fails or crashes it.
"""

import os
import resource
import signal
from typing import BinaryIO

from gristmill.pipelines.extract_html import ANSWER, READY, REQUEST, extract_text

MAX_MEMORY_BYTES = 4 << 30
"""Address space of the process; the largest page allowed by default, 16 MB, takes about 1 GB."""


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer one page at a time until the requests end."""
    answers.write(READY)
    answers.flush()
    while header := requests.read(REQUEST.size):
        timeout_ms, num_charset_bytes, num_bytes = REQUEST.unpack(header)
        charset = requests.read(num_charset_bytes).decode("utf-8", "replace")
        html = requests.read(num_bytes)
        signal.setitimer(signal.ITIMER_PROF, timeout_ms / 1000)
        try:
            is_text, answer = True, extract_text(html, charset or None).encode()
        except Exception as error:
            is_text, answer = False, f"{type(error).__name__}: {error}".encode("utf-8", "replace")
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(ANSWER.pack(is_text, len(answer)))
        answers.write(answer)
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    with os.fdopen(0, "rb") as stdin, os.fdopen(os.dup(1), "wb") as stdout:
        os.dup2(2, 1)  # what a library prints must not end up among the answers
        serve(stdin, stdout)
