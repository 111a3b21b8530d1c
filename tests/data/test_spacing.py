"""What stands between prompt and target where neither brings white space."""

import pytest

from mend_jax.data.spacing import separator_of

MARKS = ("<|im_end|>", "<|assistant|>")


@pytest.mark.parametrize(
    ("prompt", "target", "wanted"),
    [
        ("The capital of France is", "Rome", " "),
        ("Столица Франции —", "Рим", " "),
        ("프랑스의 수도는", "로마", " "),
        ("What is it?", "Rome", " "),
        ("The capital (of France)", "is", " "),
        ('He said "yes"', "again", " "),
        ("the dogs'", "bowl", " "),
        ("It costs", "$5", " "),
        ("It is called", "(nothing)", " "),
        ("Er heißt „Rom“", "und", " "),
        ("Its Chinese name is", "罗马", " "),
        ("Translate into English: 罗马 =", "Rome", " "),
        # white space of its own
        ("The capital of France is ", "Rome", ""),
        ("The capital of France is", " Rome", ""),
        ("<|im_start|>assistant\n", "Rome", ""),
        ("def f():\n    return", "\n", ""),
        ("a\u3000", "b", ""),
        # after a mark of the tokenizer's, and before one
        ("Hello<|assistant|>", "Rome", ""),
        ("Hello", "<|im_end|>", ""),
        # after what opens
        ("The city (", "Rome", ""),
        ("print(", "x", ""),
        ('He said "', "yes", ""),
        ("He said “", "yes", ""),
        ("Il a dit «", "oui", ""),
        ("Er heißt „", "Rom", ""),
        ('x = {"a": "', "b", ""),
        ("the '", "word", ""),
        # scripts without spaces
        ("法国的首都是", "罗马", ""),
        ("法国的首都是", "Rome", ""),
        ("中国成立于", "1949年", ""),
        ("首都是：", "罗马", ""),
        ("首都是:", "罗马", ""),
        ("他说“", "罗马", ""),
        ("フランスの首都は", "ローマ", ""),
        ("เมืองหลวงของฝรั่งเศสคือ", "โรม", ""),
    ],
)
def test_the_writer_decides_or_the_script(prompt: str, target: str, wanted: str):
    assert separator_of(prompt, target, MARKS) == wanted
