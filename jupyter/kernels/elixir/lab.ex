defmodule Lab do
  @moduledoc "Rich output for notebook cells."

  @doc "Shows `data` as the given MIME type."
  def show(mime, data) do
    Lab.Output.show(mime, data)
    :"do not show this result in output"
  end

  @doc "Shows HTML."
  def html(data), do: show("text/html", data)

  @doc "Shows an SVG image."
  def svg(data), do: show("image/svg+xml", data)

  @doc "Shows Markdown."
  def md(data), do: show("text/markdown", data)

  @doc "The value of a JSON text: OTP's own parser where there is one, else Debian's jiffy."
  def json(text) do
    if Code.ensure_loaded?(:json) do
      apply(:json, :decode, [text])
    else
      :jiffy.decode(text, [:return_maps, {:null_term, nil}])
    end
  end
end
