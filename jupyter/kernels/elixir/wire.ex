defmodule Lab.Wire do
  @moduledoc """
  Lines to the kernel, over descriptors 3 and 4, so that user code may do what it likes with stdin and stdout.

  A line is `KIND id field…`, fields in Base64. A bounded window of unread output holds back whoever prints.
  """

  def start do
    pid = spawn_link(fn -> writer(:erlang.open_port({:fd, 3, 4}, [:binary, :stream])) end)
    Process.register(pid, :lab_wire)
  end

  def send(kind, id, fields) do
    line = Enum.intersperse([kind, id | Enum.map(fields, &Base.encode64(to_string(&1)))], " ")
    # Answered once the port has taken it: a loop that prints cannot fill the memory.
    ref = make_ref()
    Kernel.send(:lab_wire, {:line, self(), ref, line})

    receive do
      {^ref, :written} -> :ok
    end
  end

  defp writer(port) do
    receive do
      {:line, from, ref, line} ->
        Port.command(port, [line, ?\n])
        Kernel.send(from, {ref, :written})
    end

    writer(port)
  end
end

defmodule Lab.Output do
  @moduledoc "A group leader: forwards what a cell prints and shows, up to a limit."

  @bytes_max 1_048_576
  # What an image counts besides its text: many small ones would fill the browser, too.
  @shown_bytes 1024

  def start(kind), do: spawn_link(fn -> loop(%{kind: kind, id: "0", bytes: 0, owner: nil}) end)

  @doc "Shows `data` as the given MIME type."
  def show(mime, data) do
    reference = make_ref()
    send(:lab_out, {:show, self(), reference, [to_string(mime), to_string(data)]})

    receive do
      {^reference, :shown} -> :ok
    end
  end

  defp loop(state) do
    receive do
      {:cell, id, owner} ->
        loop(%{state | id: id, bytes: 0, owner: owner})

      {:io_request, from, reference, request} ->
        {reply, state} = handle(request, state)
        send(from, {:io_reply, reference, reply})
        loop(state)

      {:show, from, reference, fields} ->
        size = fields |> Enum.map(&byte_size/1) |> Enum.sum()
        state = forward("RICH", fields, size + @shown_bytes, state)
        send(from, {reference, :shown})
        loop(state)

      _ ->
        loop(state)
    end
  end

  # A request that can't be met is an error of who asked, as with OTP's own group leader: the session is linked to this process.
  defp handle(request, state) do
    answer(request, state)
  catch
    _, _ -> {{:error, {:error, function(request)}}, state}
  end

  defp function({:put_chars, _, _, f, _}), do: f
  defp function(_), do: :put_chars

  defp answer({:put_chars, chars}, state), do: answer({:put_chars, :latin1, chars}, state)

  defp answer({:put_chars, encoding, chars}, state) do
    case :unicode.characters_to_binary(chars, encoding) do
      text when is_binary(text) -> print(text, state)
      _ -> {{:error, :not_text}, state}
    end
  end

  defp answer({:put_chars, encoding, m, f, a}, state), do: answer({:put_chars, encoding, apply(m, f, a)}, state)

  # The first that can't be met ends a list of requests.
  defp answer({:requests, requests}, state) do
    Enum.reduce_while(requests, {:ok, state}, fn request, {_, state} ->
      case handle(request, state) do
        {{:error, _}, _} = refused -> {:halt, refused}
        met -> {:cont, met}
      end
    end)
  end

  defp answer({:get_geometry, :columns}, state), do: {100, state}
  defp answer({:setopts, _}, state), do: {:ok, state}
  defp answer(:getopts, state), do: {[binary: true, encoding: :unicode], state}
  # There is nobody at a keyboard: `IO.gets` sees the end of the file.
  defp answer(request, state) when elem(request, 0) in [:get_line, :get_chars, :get_until], do: {:eof, state}
  defp answer(_, state), do: {{:error, :enotsup}, state}

  defp print(text, state), do: {:ok, forward(state.kind, [text], byte_size(text), state)}

  defp forward(kind, fields, size, state) do
    bytes = state.bytes + size

    cond do
      bytes <= @bytes_max ->
        Lab.Wire.send(kind, state.id, fields)

      state.bytes <= @bytes_max and is_pid(state.owner) ->
        Process.exit(state.owner, {:shutdown, {:output_too_large, @bytes_max}})
        Process.exit(state.owner, :kill)

      true ->
        :ok
    end

    %{state | bytes: bytes}
  end
end
