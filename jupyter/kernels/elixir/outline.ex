defmodule Lab.Outline do
  @moduledoc "What a notebook's cells declare, read from their text alone: so that it completes before any of them has run."

  # The front end puts two blank lines between cells.
  @between_cells ~r/\n[ \t]*\n[ \t]*\n/

  @doc "{name, detail}: `Tree` with `module`, `Tree.leaf` with `leaf(data)`, `seed` with `variable`. A cell that does not parse declares nothing."
  def of(text) do
    for cell <- String.split(text, @between_cells), {:ok, quoted} <- [Code.string_to_quoted(cell)], found <- declared(quoted, []), uniq: true, do: found
  end

  defp declared({:__block__, _, all}, outer), do: Enum.flat_map(all, &declared(&1, outer))

  defp declared({:defmodule, _, [{:__aliases__, _, names}, [do: body]]}, outer) do
    module = outer ++ names
    if Enum.all?(names, &is_atom/1), do: [{Enum.join(module, "."), "module"} | declared(body, module)], else: []
  end

  defp declared({kind, _, [head | _]}, [_ | _] = module) when kind in [:def, :defmacro, :defguard, :defdelegate] do
    case head do
      {:when, _, [{name, _, _} = signature | _]} when is_atom(name) -> [function(module, name, signature)]
      {name, _, _} = signature when is_atom(name) -> [function(module, name, signature)]
      _ -> []
    end
  end

  defp declared({:=, _, [pattern, _]}, []) do
    {_, names} =
      Macro.prewalk(pattern, [], fn
        {name, _, context} = node, found when is_atom(name) and is_atom(context) and name != :_ -> {node, [{to_string(name), "variable"} | found]}
        node, found -> {node, found}
      end)

    names
  end

  defp declared(_, _), do: []

  defp function(module, name, signature), do: {Enum.join(module ++ [name], "."), Macro.to_string(signature)}
end
