# A verifier of the chain after docs/spec/wire.md, independent of the node's code.
#
#     elixir client.exs votes  votes.json    a line `kind TAB name TAB verdict` for each entry
#     elixir client.exs proofs refused.json  the same for proofs of finality, by the records of chain.json beside it
#     elixir client.exs follow chain.json    follows all blocks from the genesis record: chain id, records, blocks, tip
#
# It exits with 1 and `refused: why` if the chain does not hold.

defmodule Client.Bytes do
  @moduledoc "Canonical bytes and hashes of the records."

  @kinds %{"propose" => 0, "notarize" => 1, "nullify" => 2, "finalize" => 3}
  @params [
    lag_max: 64, batch_life: 64, batch_bytes_max: 32, batch_transactions_max: 32, block_batches_max: 32, transaction_bytes_max: 32,
    transaction_life_max: 64, memo_bytes_max: 32, clock_drift_ms: 64, fee_base: 64, fee_per_byte: 64, account_creation_fee: 64
  ]

  def raw(text), do: Base.decode16!(text, case: :lower)
  def hex(data), do: Base.encode16(data, case: :lower)
  def digest(tag, data), do: hex(:crypto.hash(:sha256, ["ebpf-blockchain/", tag, "/1", 0, data]))
  def u32(n), do: <<n::little-32>>
  def u64(n), do: <<n::little-64>>

  def statement(s), do: raw(s["chain"]) <> u64(s["epoch"]) <> u64(s["view"]) <> <<@kinds[s["kind"]]>> <> u64(s["parent_view"]) <> raw(s["digest"])
  def signing(s), do: "ebpf-blockchain/statement/1" <> <<0>> <> statement(s)

  def block_hash(h) do
    first = [u32(h["version"]), raw(h["chain"]), u64(h["epoch"]), u64(h["height"]), raw(h["parent"]), u64(h["time"]), raw(h["proposer"])]
    roots = for name <- ~w(state_root receipts_root epoch_hash next_epoch_hash), do: raw(h[name])
    digest("block", [first, raw(h["body_root"]), u64(h["executed"]), roots])
  end

  def certificate_hash(c) do
    bitmap = raw(c["bitmap"])
    signatures = for signature <- c["signatures"], do: raw(signature)
    digest("certificate", [c["scheme"], statement(c["statement"]), u32(byte_size(bitmap)), bitmap, u32(length(signatures)), signatures])
  end

  def record(r) do
    params = for {name, bits} <- @params, do: <<r["params"][to_string(name)]::little-size(bits)>>
    validators = for v <- r["validators"], do: [raw(v["key"]), u64(v["weight"])]
    [u64(r["epoch"]), u64(r["first_height"]), u64(r["length"]), u32(r["version"]), params, u32(length(r["validators"])), validators]
  end

  def chain_id(g) do
    accounts = for [address, amount] <- g["accounts"], do: [raw(address), u64(amount)]
    digest("genesis", [u64(g["time"]), u32(length(g["accounts"])), accounts, Enum.map(g["epochs"], &record/1)])
  end

  def merkle([]), do: :crypto.hash(:sha256, "")
  def merkle([only]), do: only

  def merkle(leaves) do
    {left, right} = Enum.split(leaves, split(length(leaves), 1))
    :crypto.hash(:sha256, [1, merkle(left), merkle(right)])
  end

  defp split(n, power) when power * 2 < n, do: split(n, power * 2)
  defp split(_, power), do: power

  def body_root(body) do
    batches = for batch <- body["batches"], do: [0, raw(batch)]
    notarization = if c = body["parent_notarization"], do: [[1, raw(certificate_hash(c))]], else: []
    hex(merkle(for item <- batches ++ notarization, do: :crypto.hash(:sha256, [0, item])))
  end
end

defmodule Client.Rules do
  @moduledoc "What convinces. A check returns, or throws `{:refused, why}`."
  import Client.Bytes

  @headers_max 1024
  @p Integer.pow(2, 255) - 19
  # The y of points of order 8; those of smaller order are 0, 1 and -1.
  @order8 ~w(26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05 c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a)
  @zero String.duplicate("00", 32)

  def must(true, _), do: :ok
  def must(false, why), do: throw({:refused, why})

  defp good_point(data) do
    y = Integer.mod(:binary.decode_unsigned(data, :little), Integer.pow(2, 255))
    y < @p and y not in [0, 1, @p - 1 | Enum.map(@order8, &:binary.decode_unsigned(raw(&1), :little))]
  end

  # The strict rule: OpenSSL checks the equation, S < L and the form of R; canonical and not small comes first.
  defp strict(key, message, signature) do
    byte_size(key) == 32 and byte_size(signature) == 64 and good_point(key) and good_point(binary_part(signature, 0, 32)) and
      :crypto.verify(:eddsa, :none, message, signature, [key, :ed25519])
  end

  defp well_formed(s) do
    about_nothing = s["parent_view"] == 0 and s["digest"] == @zero
    s["view"] >= 1 and s["parent_view"] < s["view"] and (s["kind"] != "nullify" or about_nothing)
  end

  defp check_subject(chain, record, s) do
    must(s["chain"] == chain and s["epoch"] == record["epoch"], "another chain or epoch")
    must(s["kind"] != "propose" and well_formed(s), "no statement that can be voted for")
  end

  def check_vote(chain, record, vote) do
    check_subject(chain, record, vote["statement"])
    must(Enum.any?(record["validators"], &(&1["key"] == vote["key"])), "no validator")
    must(strict(raw(vote["key"]), signing(vote["statement"]), raw(vote["signature"])), "the signature")
  end

  def check_certificate(chain, record, c) do
    {validators, bitmap} = {record["validators"], raw(c["bitmap"])}
    must(c["scheme"] == 0, "an unknown scheme")
    check_subject(chain, record, c["statement"])
    must(byte_size(bitmap) == div(length(validators) + 7, 8), "the bitmap's length")
    seats = for {byte, at} <- Enum.with_index(:binary.bin_to_list(bitmap)), bit <- 0..7, Bitwise.band(Bitwise.bsr(byte, bit), 1) == 1, do: at * 8 + bit
    must(Enum.all?(seats, &(&1 < length(validators))), "a bit beyond the set")
    must(length(seats) == length(c["signatures"]), "the number of signatures")
    signed = for seat <- seats, do: Enum.at(validators, seat)
    sum = fn list -> Enum.sum(Enum.map(list, & &1["weight"])) end
    must(3 * sum.(signed) > 2 * sum.(validators), "no quorum")
    message = signing(c["statement"])
    must(Enum.all?(Enum.zip(signed, c["signatures"]), fn {v, signature} -> strict(raw(v["key"]), message, raw(signature)) end), "a signature")
  end

  # What no honest key signs both of: two of a kind, or nullify and finalize, in one view.
  defp contradicts(a, b) do
    same_view = Enum.all?(~w(chain epoch view), &(a[&1] == b[&1]))
    same_view and a != b and (a["kind"] == b["kind"] or Enum.sort([a["kind"], b["kind"]]) == ["finalize", "nullify"])
  end

  def check_evidence(%{"key" => key, "first" => [first, _], "second" => [second, _]} = evidence) do
    must(contradicts(first, second), "no contradiction")
    pairs = [evidence["first"], evidence["second"]]
    must(Enum.all?(pairs, fn [statement, signature] -> strict(raw(key), signing(statement), raw(signature)) end), "a signature")
  end

  def check_finality(chain, record, %{"headers" => headers, "certificate" => c}) do
    must(length(headers) in 1..@headers_max, "the number of headers")
    must(Enum.all?(headers, &(&1["chain"] == chain and &1["epoch"] == record["epoch"])), "a header of another chain or epoch")
    must(Enum.all?(Enum.zip(headers, tl(headers)), fn {a, b} -> b["parent"] == block_hash(a) and b["height"] == a["height"] + 1 end), "a broken run")
    must(c["statement"]["kind"] == "finalize" and c["statement"]["digest"] == block_hash(List.last(headers)), "a certificate of something else")
    check_certificate(chain, record, c)
  end

  def check_block(chain, record, %{"header" => header} = block) do
    must(digest("epoch", record(record)) == header["epoch_hash"], "another record")
    must(header["height"] in record["first_height"]..(record["first_height"] + record["length"] - 1), "another epoch's height")
    check_finality(chain, record, block["finality"])
    must(block_hash(hd(block["finality"]["headers"])) == block_hash(header), "a proof of another block")
    must(body_root(block["body"]) == header["body_root"], "another body")
    block_hash(header)
  end

  # {chain id, known records, tip}: what a light client knows in the end.
  def follow(genesis, blocks) do
    id = chain_id(genesis)

    {records, tip, _} =
      Enum.reduce(blocks, {genesis["epochs"], id, nil}, fn %{"header" => h} = block, {records, tip, named} ->
        must(h["parent"] == tip, "not the next block")
        new = h["epoch"] == length(records)
        if new, do: must(h["epoch_hash"] == named, "a record that no final header named")
        records = if new, do: records ++ [block["epoch"]], else: records
        must(h["epoch"] < length(records), "an unknown epoch")
        {records, check_block(id, Enum.at(records, h["epoch"]), block), h["next_epoch_hash"]}
      end)

    {id, records, tip}
  end
end

defmodule Client do
  @moduledoc "The command line."
  alias Client.Rules

  def json(text) do
    if Code.ensure_loaded?(:json), do: apply(:json, :decode, [text]), else: apply(:jiffy, :decode, [text, [:return_maps, {:null_term, nil}]])
  end

  defp load(path), do: json(File.read!(path))

  defp say(kind, name, check) do
    verdict =
      try do
        check.()
        true
      catch
        {:refused, _} -> false
      end

    IO.puts(Enum.join([kind, name, verdict], "\t"))
  end

  def run(["votes", path]) do
    %{"chain" => chain, "records" => records} = file = load(path)
    record = &Enum.at(records, &1["record"])
    for each <- file["votes"], do: say("vote", each["name"], fn -> Rules.check_vote(chain, record.(each), each["vote"]) end)
    for each <- file["certificates"], do: say("certificate", each["name"], fn -> Rules.check_certificate(chain, record.(each), each["certificate"]) end)
    for each <- file["evidence"], do: say("evidence", each["name"], fn -> Rules.check_evidence(each["evidence"]) end)
  end

  def run(["proofs", path]) do
    golden = load(Path.join(Path.dirname(path), "chain.json"))
    chain = Client.Bytes.chain_id(golden["genesis"]["record"])

    for %{"name" => name, "proof" => proof} <- load(path)["finality"] do
      epoch = if proof["headers"] == [], do: 0, else: hd(proof["headers"])["epoch"]
      say("finality", name, fn -> Rules.check_finality(chain, Enum.at(golden["epochs"], epoch)["record"], proof) end)
    end
  end

  def run(["follow", path]) do
    golden = load(path)

    try do
      {chain, records, tip} = Rules.follow(golden["genesis"]["record"], golden["blocks"])
      IO.puts("#{chain} #{length(records)} #{length(golden["blocks"])} #{tip}")
    catch
      {:refused, why} ->
        IO.puts("refused: " <> why)
        System.halt(1)
    end
  end

  def run(_) do
    IO.puts(:stderr, "usage: client.exs votes|proofs|follow FILE")
    System.halt(2)
  end
end

Client.run(System.argv())
