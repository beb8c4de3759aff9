"""Exports small models of architectures for tests/exports.rs, which compiles and runs them.

    pip install torch==2.15.* transformers==4.57.* optimum-onnx onnxscript onnxruntime
    python3 tests/exports/export.py [NAME ...]

writes `NAME.onnx` and `NAME.npz` beside this file: the graph as a user's call of the exporter leaves it, weights within,
and inputs with onnxruntime's outputs. Weights are random, of the size that training leaves them at.
"""

import math
import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
import transformers

FOLDER = pathlib.Path(__file__).resolve().parent
VOCABULARY, WIDTH, INNER, HEADS, TOKENS, PADDED = 32, 16, 24, 2, 8, 3

SIZES = dict(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=2,
             num_attention_heads=HEADS, max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=2)
GROUPED = dict(SIZES, num_attention_heads=4, num_key_value_heads=2, head_dim=4)
OLD = dict(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=HEADS, n_positions=16, n_inner=INNER, bos_token_id=0,
           eos_token_id=1)
IMAGE = dict(image_size=16, num_labels=5)
SPOKEN = dict(d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=HEADS,
              decoder_attention_heads=HEADS, encoder_ffn_dim=INNER, decoder_ffn_dim=INNER, vocab_size=VOCABULARY,
              pad_token_id=2, bos_token_id=0, eos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=None)


def tokens(count=TOKENS, rows=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, count), generator=generator)


def text():
    return {"input_ids": tokens(), "attention_mask": torch.ones(1, TOKENS, dtype=torch.long)}


def padded():
    inputs = {"input_ids": tokens(rows=2), "attention_mask": torch.ones(2, TOKENS, dtype=torch.long)}
    inputs["attention_mask"][1, -PADDED:] = 0
    inputs["input_ids"][1, -PADDED:] = 2
    return inputs


def caption():
    inputs = text()
    inputs["input_ids"][0, -2:] = 1
    return inputs


def translation():
    return dict(text(), decoder_input_ids=tokens(5, seed=2))


def step():
    return {"input_ids": tokens(1), "attention_mask": torch.ones(1, TOKENS, dtype=torch.long)}


def numbers(name, *shape):
    return lambda: {name: torch.randn(shape, generator=torch.Generator().manual_seed(3))}


def dynamo(opset):
    return lambda model, inputs, path: torch.onnx.export(
        model, (), str(path), kwargs=inputs, opset_version=opset, dynamo=True, external_data=False)


def legacy(opset):
    return lambda model, inputs, path: torch.onnx.export(
        model, (), str(path), kwargs=inputs, opset_version=opset, dynamo=False, input_names=list(inputs))


def optimum(task, level=None):
    def export(model, _, path):
        from optimum.exporters.onnx import main_export

        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder + "/model")
            main_export(folder + "/model", output=folder + "/onnx", task=task, optimize=level, do_validation=False,
                        no_post_process=True, library_name="transformers")
            onnx.save(onnx.load(folder + "/onnx/model.onnx"), str(path))

    return export


# Class and configuration in transformers, settings, inputs, exporter.
MODELS = {
    "bart": ("BartForConditionalGeneration", "BartConfig", dict(SPOKEN, max_position_embeddings=16), translation,
             dynamo(18)),
    "clip-text": ("CLIPTextModelWithProjection", "CLIPTextConfig", dict(SIZES, projection_dim=8), caption, dynamo(18)),
    "codegen": ("CodeGenForCausalLM", "CodeGenConfig", dict(OLD, n_head=4, rotary_dim=2, n_ctx=16), text, dynamo(18)),
    "convbert": ("ConvBertForSequenceClassification", "ConvBertConfig",
                 dict(SIZES, embedding_size=WIDTH, conv_kernel_size=3, num_attention_heads=4, num_labels=3), padded,
                 dynamo(18)),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig",
                 dict(IMAGE, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2), numbers("pixel_values", 1, 3, 16, 16),
                 legacy(17)),
    "deberta-v2": ("DebertaV2ForSequenceClassification", "DebertaV2Config",
                   dict(SIZES, relative_attention=True, position_buckets=4, norm_rel_ebd="layer_norm",
                        share_att_key=True, pos_att_type=["p2c", "c2p"], position_biased_input=False, num_labels=3,
                        type_vocab_size=0), padded, dynamo(18)),
    "falcon": ("FalconForCausalLM", "FalconConfig",
               dict(SIZES, multi_query=True, parallel_attn=True, bias=False, ffn_hidden_size=INNER), text, dynamo(18)),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", dict(GROUPED, sliding_window=4, query_pre_attn_scalar=4), text,
               dynamo(20)),
    "gpt-bigcode": ("GPTBigCodeForCausalLM", "GPTBigCodeConfig", dict(OLD, multi_query=True, pad_token_id=2), text,
                    optimum("text-generation", "O2")),
    "gptj": ("GPTJForCausalLM", "GPTJConfig", dict(OLD, rotary_dim=4), text, dynamo(18)),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig",
                   dict(SIZES, cls_token_id=0, sep_token_id=1, local_attention=4, global_attn_every_n_layers=2,
                        reference_compile=False), padded, dynamo(18)),
    "mpt": ("MptForCausalLM", "MptConfig",
            dict(vocab_size=VOCABULARY, d_model=WIDTH, n_heads=HEADS, n_layers=2, max_seq_len=16, expansion_ratio=2),
            padded, dynamo(18)),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {k: v for k, v in GROUPED.items() if k != "head_dim"}, step,
             optimum("text-generation-with-past")),
    "segformer": ("SegformerForImageClassification", "SegformerConfig",
                  dict(IMAGE, num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
                       patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
                       decoder_hidden_size=8), numbers("pixel_values", 1, 3, 16, 16), legacy(17)),
    "squeezebert": ("SqueezeBertForSequenceClassification", "SqueezeBertConfig",
                    dict(SIZES, embedding_size=WIDTH, num_labels=3, q_groups=2, k_groups=2, v_groups=2,
                         post_attention_groups=1, intermediate_groups=2, output_groups=2), padded, dynamo(18)),
    "whisper-encoder": ("WhisperEncoder", "WhisperConfig", dict(SPOKEN, num_mel_bins=4, max_source_positions=TOKENS),
                        numbers("input_features", 1, 4, 2 * TOKENS), dynamo(18)),
}


def model_of(name, config, settings):
    torch.manual_seed(7)
    config = getattr(transformers, config)(**settings)
    config.use_cache = False
    config._attn_implementation = "eager" if "Squeeze" in name or "Deberta" in name else "sdpa"
    if name == "WhisperEncoder":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as kind
    else:
        kind = getattr(transformers, name)
    try:
        model = kind(config)
    except ValueError:  # There is no other attention than the plain one.
        config._attn_implementation = "eager"
        model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                fan = parameter[0].numel()
                parameter.normal_(0, 1 / math.sqrt(fan))
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def without_notes(path):
    """Exporters write where their own source files lie."""
    model = onnx.load(str(path))
    graphs = [model.graph] + list(model.functions)
    for holder in graphs + [n for g in graphs for n in g.node] + list(model.graph.value_info) + [model]:
        del holder.metadata_props[:]
        holder.doc_string = ""
    del model.graph.value_info[:]
    onnx.save(model, str(path))


def with_past(session, inputs):
    """Fills what else the session asks for: keys and values of the past, and positions behind it."""
    generator = torch.Generator().manual_seed(4)
    for wanted in session.get_inputs():
        before = TOKENS - inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        if wanted.name.startswith("past_key_values"):
            shape = [{"batch_size": 1}.get(d, before) if isinstance(d, str) else d for d in wanted.shape]
            inputs[wanted.name] = torch.randn(shape, generator=generator) / 2
        elif wanted.name == "position_ids":
            inputs[wanted.name] = torch.arange(before, TOKENS)[None]
    return inputs


def main(names):
    for name in names or MODELS:
        kind, config, settings, inputs, export = MODELS[name]
        path = FOLDER / (name + ".onnx")
        export(model_of(kind, config, settings), inputs(), path)
        without_notes(path)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        given = {n: t.numpy() for n, t in with_past(session, inputs()).items()}
        fed = {wanted.name: given[wanted.name] for wanted in session.get_inputs()}
        outputs = dict(zip((o.name for o in session.get_outputs()), session.run(None, fed)))
        arrays = {"in." + n: a for n, a in fed.items()} | {"out." + n: a for n, a in outputs.items()}
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
        largest = {n: float(np.abs(a).max()) for n, a in outputs.items()}
        print(name, path.stat().st_size, {n: (a.shape, round(largest[n], 2)) for n, a in outputs.items()}, flush=True)


main(sys.argv[1:])
