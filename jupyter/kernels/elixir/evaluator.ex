defmodule Lab.Evaluator do
  @moduledoc """
  The process in which cells run: bindings, aliases, imports, the mailbox and linked processes stay from cell to cell.

  A cell that raises leaves the state as it was before it.
  """

  @internals [:elixir, :erl_eval, :elixir_eval, :elixir_expand, :elixir_compiler, :elixir_lexical, Module.ParallelChecker, Code]

  def start(output, state) do
    spawn(fn ->
      Process.group_leader(self(), output)
      loop(state || {[], Code.env_for_eval(file: "cell", line: 1)})
    end)
  end

  defp loop({binding, env} = state) do
    receive do
      {:lab_eval, server, id, code} ->
        {reply, state} = evaluate(code, binding, env, state)
        send(server, {:lab_done, self(), id, reply, state})
        loop(state)
    end
  end

  defp evaluate(code, binding, env, old) do
    quoted = Code.string_to_quoted!(code, file: "cell", line: 1)
    {value, binding, env} = Code.eval_quoted_with_env(quoted, binding, %{env | file: "cell", line: 1})
    {{:ok, shown(value)}, {binding, env}}
  catch
    kind, reason ->
      reason = if kind == :error, do: Exception.normalize(:error, reason, __STACKTRACE__), else: reason
      trace = Exception.format(kind, reason, prune(__STACKTRACE__))
      {{:error, name(kind, reason), message(reason), trace}, old}
  end

  # Here and not in the server: how a struct is shown is the reader's code, too.
  defp shown(:"do not show this result in output"), do: nil
  defp shown({:module, module, code, _}) when is_atom(module) and is_binary(code), do: inspect(module)
  defp shown(value), do: inspect(value, pretty: true, width: 100, limit: 100, printable_limit: 4000)

  defp name(:error, %module{}), do: inspect(module)
  defp name(kind, _), do: to_string(kind)

  defp message(reason) when is_exception(reason), do: Exception.message(reason)
  defp message(reason), do: inspect(reason)

  # Only the reader's own frames.
  defp prune(stacktrace) do
    stacktrace
    |> Enum.take_while(fn frame -> elem(frame, 0) != Lab.Evaluator end)
    |> Enum.reject(fn frame -> elem(frame, 0) in @internals end)
  end
end
