# One long-lived session for the kernel and for the language server.
#
#   in   EVAL id code · COMPLETE id before · INSPECT id before · CHECK id code · OUTLINE id code · INTERRUPT id   (stdin, a line each)
#   out  READY 0 elixir otp · OUT|ERR id text · RICH id mime data · RES id mime text · ITEM id label detail
#        DIAG id line column severity message · DONE id ok|incomplete|error …                         (descriptor 4)
for file <- ~w(wire.ex lab.ex evaluator.ex intelligence.ex outline.ex), do: Code.require_file(file, __DIR__)

defmodule Lab.Server do
  def main do
    Code.compiler_options(ignore_module_conflict: true)
    for application <- [:iex, :crypto], do: {:ok, _} = Application.ensure_all_started(application)
    Application.put_env(:elixir, :ansi_enabled, false)
    # A crashed linked process is reported by the cell itself; the logger would print it a second time.
    Lab.Wire.start()
    out = Lab.Output.start("OUT")
    Process.register(out, :lab_out)
    err = Lab.Output.start("ERR")
    Process.unregister(:standard_error)
    Process.register(err, :standard_error)
    server = self()
    spawn_link(fn -> read(server) end)
    Lab.Wire.send("READY", "0", [System.version(), System.otp_release()])
    loop(%{out: out, err: err, evaluator: evaluator(out, nil), state: nil, busy: nil})
  end

  defp evaluator(out, state) do
    pid = Lab.Evaluator.start(out, state)
    Process.monitor(pid)
    pid
  end

  defp read(server) do
    case IO.read(:stdio, :line) do
      line when is_binary(line) ->
        send(server, {:line, String.split(String.trim_trailing(line), " ")})
        read(server)

      # The kernel is gone.
      _ ->
        System.halt(0)
    end
  end

  defp loop(s) do
    receive do
      {:line, [verb, id | fields]} ->
        loop(handle(verb, id, Enum.map(fields, &Base.decode64!/1), s))

      {:lab_done, evaluator, id, reply, state} when evaluator == s.evaluator ->
        finish(id, reply)
        loop(%{s | state: state, busy: nil})

      {:DOWN, _, :process, evaluator, reason} when evaluator == s.evaluator ->
        if s.busy, do: Lab.Wire.send("DONE", s.busy, ["error" | ended(reason)])
        loop(%{s | evaluator: evaluator(s.out, s.state), busy: nil})

      _ ->
        loop(s)
    end
  end

  defp handle("EVAL", id, [code], s) do
    for output <- [s.out, s.err], do: send(output, {:cell, id, s.evaluator})
    send(s.evaluator, {:lab_eval, self(), id, code})
    %{s | busy: id}
  end

  defp handle("INTERRUPT", _, _, %{busy: nil} = s), do: s

  defp handle("INTERRUPT", _, _, s) do
    Process.exit(s.evaluator, :kill)
    s
  end

  defp handle("COMPLETE", id, [before], s) do
    {items, length} = Lab.Intelligence.complete(before, elem(s.state || {[], nil}, 0))
    for {label, detail} <- items, do: Lab.Wire.send("ITEM", id, [label, detail])
    Lab.Wire.send("DONE", id, ["ok", length])
    s
  end

  defp handle("INSPECT", id, [before], s) do
    Lab.Wire.send("RES", id, ["text/markdown", Lab.Intelligence.documentation(before)])
    Lab.Wire.send("DONE", id, ["ok"])
    s
  end

  defp handle("CHECK", id, [code], s) do
    case Lab.Intelligence.check(code) do
      :ok ->
        Lab.Wire.send("DONE", id, ["ok"])

      {kind, line, column, message} ->
        Lab.Wire.send("DIAG", id, [line, column, "error", message])
        Lab.Wire.send("DONE", id, [kind])
    end

    s
  end

  defp handle("OUTLINE", id, [code], s) do
    for {name, detail} <- Lab.Outline.of(code), do: Lab.Wire.send("ITEM", id, [name, detail])
    Lab.Wire.send("DONE", id, ["ok"])
    s
  end

  defp handle(_, id, _, s) do
    Lab.Wire.send("DONE", id, ["error", "UnknownVerb", "", ""])
    s
  end

  defp ended({:shutdown, {:output_too_large, bytes}}) do
    text = "more than #{bytes} bytes; the cell was ended, bindings are as before it"
    ["OutputTooLarge", text, "OutputTooLarge: " <> text]
  end

  defp ended(:killed) do
    text = "the cell was interrupted; bindings are as before it, linked processes have ended"
    ["Interrupted", text, "Interrupted: " <> text]
  end

  defp ended(reason) do
    text = "the cell's process ended: #{Exception.format_exit(reason)}; bindings are as before it"
    ["Exit", text, "Exit: " <> text]
  end

  defp finish(id, {:ok, text}) do
    if text, do: Lab.Wire.send("RES", id, ["text/plain", text])
    Lab.Wire.send("DONE", id, ["ok"])
  end

  defp finish(id, {:error, name, message, trace}), do: Lab.Wire.send("DONE", id, ["error", name, message, trace])
end

Lab.Server.main()
