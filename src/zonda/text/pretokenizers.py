"""How each pre-tokenizer that a GGUF file can name cuts text before byte-pair merging. Plain data."""
from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """`splits` are regular expressions of Oniguruma, applied one after another; matches and what lies between are kept.

    `whole` takes a piece that is itself a token as it is, before any merging; `nfc` composes characters first; `bos`
    is the default when a file does not say whether text begins with BOS; without `byte_level`, tokens are spelled in
    characters, with a block for the space, and the byte tokens of SentencePiece; `drop` leaves out what matches.
    """

    splits: tuple[str, ...]
    whole: bool = False
    nfc: bool = False
    bos: bool = False
    byte_level: bool = True
    drop: bool = False


def _class(ranges: str) -> str:
    """A character class of hexadecimal code points and ranges of them."""
    points = (each.split("-") for each in ranges.split())
    return "[" + "".join("-".join(rf"\x{{{point}}}" for point in pair) for pair in points) + "]"


CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
ANY_CASE = rf"(?i:{CONTRACTIONS})"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
SYMBOLS_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+"
CAPITALS = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
UPPER_NOT_HAN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
LOWER_NOT_HAN = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
ASCII_WORD = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
LINES = r"[^\n]+|[\n]+"
ONE_DIGIT = r"\p{N}"
THREE_DIGITS = r"\p{N}{1,3}"
THREES_FROM_THE_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"

LATIN_GREEK_CYRILLIC = _class(
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C "
    "38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B "
    "1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 "
    "1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 "
    "2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B "
    "2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 "
    "FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF "
    "1E900-1E943")
CHINESE_KOREAN = _class("4E00-9FA5 800-4E00 AC00-D7FF")
CHINESE_JAPANESE = _class("4E00-9FA5 3040-309F 30A0-30FF")
EAST_ASIAN = _class("4E00-9FFF 3400-4DBF F900-FAFF 3040-309F 30A0-30FF FF65-FF9F 2F00-2FDF E40-E7F E80-EFF 1780-17FF "
                    "1000-109F AA60-AA7F A9E0-A9FF AC00-D7AF 1100-11FF")
HANGUL = _class("AC00-D7A3 3131-318E")
FULL_WIDTH_MARKS = _class("FF01 2026 201C 201D 2018 2019 2014 FF1A FF1B FF0C 3001-303F FE30-FE4F")
BOPOMOFO = _class("3105-312F")
DEEPSEEK_MARKS = _class("21-2F 3A-7E FF01-FF0F FF1A-FF5E 2018-201F 3000-3002")

WORDS = rf"{CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
TIKTOKEN = rf"{ANY_CASE}|{LETTERS}|{THREE_DIGITS}|{SYMBOLS}|{SPACES}"
QWEN = rf"{ANY_CASE}|{LETTERS}|{ONE_DIGIT}|{SYMBOLS}|{SPACES}"
QWEN_MARKS = (rf"{ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|{ONE_DIGIT}"
              rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACES}")
O200K = rf"{CASED}{ANY_CASE}?|{CAPITALS}{ANY_CASE}?|{THREE_DIGITS}|{SYMBOLS_SLASH}|{SPACES}"
O200K_DIGITS = rf"{CASED}{ANY_CASE}?|{CAPITALS}{ANY_CASE}?|{ONE_DIGIT}|{SYMBOLS_SLASH}|{SPACES}"
BLOOM = r" ?[^(\s|[.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C}])]+"
DEEPSEEK = rf"{ASCII_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{SPACES}"
CASCADE = "|".join(rf"\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))

GPT2 = PreTokenizer((WORDS,))
DIGITS_FIRST = PreTokenizer((ONE_DIGIT, WORDS))
LLAMA3 = PreTokenizer((TIKTOKEN,), whole=True, bos=True)
TIKTOKEN_CUT = PreTokenizer((TIKTOKEN,))
QWEN2 = PreTokenizer((QWEN,))
GPT4O = PreTokenizer((O200K,))
DEEPSEEK3 = PreTokenizer((THREE_DIGITS, CHINESE_JAPANESE + "+", DEEPSEEK))
COHERE = PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", O200K))
BAILING = PreTokenizer((
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",))
GEMMA4 = PreTokenizer((LINES,), byte_level=False, bos=True)
DEFAULT = PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", WORDS, r"\p{N}+", "[0-9][0-9][0-9]"))

_SHARED = (
    (GPT2, "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en "
           "jina-v2-code roberta-bpe jais trillion granite-docling exaone4"),
    (replace(GPT2, nfc=True), "mpt olmo"),
    (DIGITS_FIRST, "starcoder refact smollm codeshell exaone minerva-7b mellum2"),
    (replace(DIGITS_FIRST, nfc=True), "command-r"),
    (LLAMA3, "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"),
    (TIKTOKEN_CUT, "dbrx smaug-bpe chatglm-bpe"),
    (replace(TIKTOKEN_CUT, whole=True), "glm4 glm5"),
    (QWEN2, "deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2"),
    (replace(QWEN2, nfc=True), "qwen2"),
    (GPT4O, "gpt-4o llama4 kanana2 talkie minimax-m2"),
    (replace(GPT4O, whole=True), "granite-embed-multi-97m"),
    (DEEPSEEK3, "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (COHERE, "tiny_aya cohere2moe"),
    (BAILING, "bailingmoe bailingmoe2 llada-moe"),
    (PreTokenizer((BLOOM,)), "bloom poro-chat gpt3-finnish"),
    (GEMMA4, "gemma4 granite-embed-multi-311m"),
    (replace(GEMMA4, bos=False), "sarvam-moe"),
)

PRETOKENIZERS: dict[str, PreTokenizer] = {name: rule for rule, names in _SHARED for name in names.split()} | {
    "default": DEFAULT,
    "qwen35": PreTokenizer((QWEN_MARKS,), nfc=True),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", WORDS, "[0-9][0-9][0-9]")),
    "viking": PreTokenizer((BLOOM, ONE_DIGIT)),
    "tekken": PreTokenizer((rf"{CASED}|{CAPITALS}|{ONE_DIGIT}|{SYMBOLS_SLASH}|{SPACES}",), whole=True, bos=True),
    "youtu": PreTokenizer((f"{HANGUL}+|{FULL_WIDTH_MARKS}+|{BOPOMOFO}+|{CHINESE_JAPANESE}+", O200K_DIGITS), whole=True),
    "jais-2": PreTokenizer((rf"{ANY_CASE}|{LETTERS}|{THREE_DIGITS}|{SYMBOLS}|\s*[\r\n]+|{CASCADE}|\s{{1}}",)),
    "minicpm5": PreTokenizer((THREE_DIGITS, rf"{ANY_CASE}|{LETTERS}|\p{{N}}+|{SYMBOLS}|{SPACES}"), whole=True),
    "deepseek-llm": PreTokenizer(("[\r\n]", rf"\s?{LATIN_GREEK_CYRILLIC}+", rf"\s?{DEEPSEEK_MARKS}+", r"\s+$",
                                  CHINESE_KOREAN + "+", r"\p{N}+")),
    "deepseek-coder": PreTokenizer(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CHINESE_KOREAN + "+", ONE_DIGIT)),
    "spark2_5": PreTokenizer((THREE_DIGITS, CHINESE_JAPANESE + "+",
                              rf"{ASCII_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+", ONE_DIGIT)),
    "seed-coder": PreTokenizer((rf"{ANY_CASE}|{LETTERS}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{SPACES}",)),
    "ufakzeka": PreTokenizer((rf"{LETTERS}|{ONE_DIGIT}|{SYMBOLS}|{SPACES}",)),
    "superbpe": PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    "chameleon": PreTokenizer((r"<sentinel:[0-9]+>", r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )",
                               ONE_DIGIT, r"[\p{P}!-/:-@\[-`{-~]", WORDS), bos=True),
    "afmoe": PreTokenizer((THREES_FROM_THE_RIGHT, EAST_ASIAN + "+", DEEPSEEK)),
    "laguna": PreTokenizer((LINES, QWEN)),
    "exaone-moe": PreTokenizer((rf"{ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+"
                                rf"|{ONE_DIGIT}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",)),
    "kimi-k2": PreTokenizer((rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?{UPPER_NOT_HAN}*{LOWER_NOT_HAN}+{ANY_CASE}?"
                             rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER_NOT_HAN}+{LOWER_NOT_HAN}*{ANY_CASE}?"
                             rf"|{THREE_DIGITS}|{SYMBOLS}|{SPACES}",)),
    "whitespace": PreTokenizer((r"\s+",), byte_level=False, drop=True),
}
