defmodule Lab.Intelligence do
  @moduledoc "Completion, documentation and syntax, for the kernel and for the language server."

  @doc "{[{label, detail}], length of the text that a label replaces} for the code before the cursor."
  def complete(before, binding) do
    {items, hint} =
      case Code.Fragment.cursor_context(before) do
        {:dot, {:var, variable}, hint} -> {members(binding, variable, to_string(hint)), hint}
        {:local_or_var, hint} -> {variables(binding, to_string(hint)) ++ names(before), hint}
        {:alias, hint} -> {names(before), last_segment(hint)}
        {_, _, hint} when is_list(hint) -> {names(before), hint}
        {_, hint} when is_list(hint) -> {names(before), hint}
        _ -> {names(before), []}
      end

    {Enum.uniq(items), length(hint)}
  end

  defp last_segment(hint), do: hint |> to_string() |> String.split(".") |> List.last() |> String.to_charlist()

  defp variables(binding, hint) do
    for {name, _} <- binding, is_atom(name), text = to_string(name), String.starts_with?(text, hint), do: {text, "variable"}
  end

  defp members(binding, variable, hint) do
    # No new atom for a name that is not bound.
    case Enum.find(binding, fn {name, _} -> to_string(name) == to_string(variable) end) do
      {_, map} when is_map(map) ->
        for {key, _} <- Map.delete(map, :__struct__), is_atom(key), text = to_string(key), String.starts_with?(text, hint), do: {text, "field"}

      {_, module} when is_atom(module) and not is_nil(module) ->
        names(inspect(module) <> "." <> hint)

      _ ->
        []
    end
  end

  defp names(before) do
    case IEx.Autocomplete.expand(before |> String.to_charlist() |> Enum.reverse()) do
      {:yes, hint, []} -> [{hd(Regex.run(~r/[\w!?@]*$/u, before)) <> to_string(hint), ""}]
      {:yes, _, labels} -> Enum.map(labels, &{to_string(&1), ""})
      _ -> []
    end
  rescue
    # The completer raises on some half-written code.
    _ -> []
  end

  @doc "Markdown documentation of the name that ends before the cursor, or the empty text."
  def documentation(before) do
    with {module, function} <- target(Code.Fragment.cursor_context(before)),
         {:docs_v1, _, _, _, module_text, _, docs} <- Code.fetch_docs(module) do
      if function, do: function_text(docs, function), else: "# #{inspect(module)}\n\n" <> english(module_text)
    else
      _ -> ""
    end
  end

  defp function_text(docs, function) do
    Enum.map_join(
      for({{kind, name, _}, _, signature, text, _} <- docs, to_string(name) == function, kind in [:function, :macro], do: {signature, text}),
      "\n\n---\n\n",
      fn {signature, text} -> "```elixir\n#{Enum.join(signature, "\n")}\n```\n\n" <> english(text) end
    )
  end

  defp target({:alias, module}), do: {module(module), nil}
  defp target({kind, {:alias, module}, function}) when kind in [:dot, :dot_arity, :dot_call], do: {module(module), to_string(function)}
  defp target({kind, function}) when kind in [:local_or_var, :local_call, :local_arity], do: {Kernel, to_string(function)}
  defp target(_), do: nil

  defp module(name), do: Module.concat([List.to_string(name)])

  defp english(%{"en" => text}), do: text
  defp english(_), do: ""

  @doc ":ok, or {:incomplete | :error, line, column, message}."
  def check(code) do
    case Code.string_to_quoted(code, columns: true) do
      {:ok, _} ->
        :ok

      {:error, {meta, message, token}} ->
        text = if is_tuple(message), do: Enum.join(Tuple.to_list(message), token), else: message <> token
        kind = if String.contains?(text, "missing terminator") or token == "", do: :incomplete, else: :error
        {kind, meta[:line] || 1, meta[:column] || 1, text}
    end
  end
end
