"""What the project's own kernels share: `%%tutor`, and telling the tutor what failed."""

import asyncio
import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from laboratory.tutor import Tutor  # noqa: E402


class Tutored:
    """Mixed into a kernel whose cells are executed by `execute_code(code, silent)`."""

    tutor_language = ""
    _tutor = None

    @property
    def tutor(self):
        # When a cell asks first: the kernel's folder is the notebook's by then.
        if self._tutor is None:
            self._tutor = Tutor(self.tutor_language)
        return self._tutor

    async def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **_):
        if not code.strip():
            return self.done()
        # An answer may take a minute, from an endpoint that the reader has set.
        answer = await asyncio.to_thread(self.asked, code)
        if answer is not None:
            self.send_response(self.iopub_socket, "display_data", {"data": {"text/markdown": answer, "text/plain": answer}, "metadata": {}})
            return self.done()
        reply = await self.execute_code(code, silent)
        if not silent:
            with contextlib.suppress(Exception):
                self.tutor.saw(code, self.error_of(reply))
        return reply

    def asked(self, code):
        """The tutor's answer, or None. Whatever happens to it: a cell without a reply would run for ever."""
        try:
            return self.tutor.asked(code)
        except Exception as error:
            return f"The tutor failed ({type(error).__name__}: {error})." if code.lstrip().startswith("%%tutor") else None

    def error_of(self, reply):
        return None if reply["status"] == "ok" else f"{reply.get('ename', 'Error')}: {reply.get('evalue', '')}"

    def done(self):
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}
