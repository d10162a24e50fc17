"""Write completions/: what bash, zsh and fish complete, from the verbs' options and the table of layers.

    python scripts/make_completions.py

The files hold all that they need: convcalc isn't started when TAB is pressed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from convcalc.analysis.costs import CONVENTIONS
from convcalc.analysis.memory import DTYPES, OPTIMIZERS
from convcalc.cli import VERBS, every_verb
from convcalc.cli.options import FORMATS
from convcalc.expressions.layer_text import field_names
from convcalc.expressions.tokens import WIRING
from convcalc.layers import LAYERS
from convcalc.layers.conv import PADDING_MODES
from convcalc.records import parameters_of

FOLDER = Path(__file__).parent.parent / "completions"
VALUES = {
    "format_name": FORMATS,
    "convention": CONVENTIONS,
    "dtype": tuple(DTYPES),
    "optimizer": tuple(OPTIMIZERS),
    "kind": tuple(LAYERS),
    "padding_mode": PADDING_MODES,
}
"""What an option's value may be, by the name of its parameter."""
FILES = ("output", "weights", "bias_values", "fit", "check")
"""The options whose value may be a file."""
HELP = ("-h", "--help")
HELP_TEXT = "The options of a verb, every kind of layer, or what one takes"
HEAD = "convcalc's completions, made by scripts/make_completions.py: change that, not this."


class Option:
    """One option of a verb: how it is written, what it says, and what may follow it."""

    def __init__(self, flags: tuple[str, ...], text: str, parameter: Any = None) -> None:
        self.flags = flags
        self.text = text
        self.takes_value = parameter is not None and not parameter.is_flag
        self.values = VALUES.get(parameter.name, ()) if self.takes_value else ()
        self.files = self.takes_value and parameter.name in FILES
        self.metavar = (self.takes_value and parameter.metavar) or "VALUE"
        self.key = (flags, text, self.takes_value, self.values)


def options() -> dict[str, list[Option]]:
    """The options of each verb, in the order of its help."""
    found: dict[str, list[Option]] = {}
    commands: Mapping[str, Any] = every_verb().commands
    for verb in VERBS:
        found[verb] = []
        for parameter in commands[verb].params:
            if parameter.param_type_name != "option" or parameter.name == "help":
                continue
            text = (parameter.help or "").rstrip(".")
            found[verb].append(Option(tuple(parameter.opts), text, parameter))
            if parameter.secondary_opts:
                found[verb].append(Option(tuple(parameter.secondary_opts), text, parameter))
        found[verb].append(Option(HELP, "Show this message and exit"))
    return found


def arguments() -> dict[tuple[str, ...], list[str]]:
    """What may follow `kind:` and each comma, and the names of the kinds that it is for."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for kind in LAYERS.values():
        words = (*(f"{field}=" for field in field_names(kind.layer_class())), "name=", *kind.flags)
        classes = [kind.classes] if isinstance(kind.classes, str) else list(kind.classes)
        names = dict.fromkeys([*kind.names(), *classes])
        kinds.setdefault(words, []).extend(name for name in names if name not in kinds.get(words, []))
    return kinds


def field_values() -> dict[str, list[str]]:
    """The fields with a fixed set of values."""
    found = {"padding_mode": list(PADDING_MODES)}
    for kind in LAYERS.values():
        cls = kind.layer_class()
        for name, default in parameters_of(cls).items():
            if isinstance(default, bool):
                found[name] = ["true", "false"]
    return dict(sorted(found.items()))


def words() -> list[str]:
    """What may stand where a layer may: kinds and wiring."""
    return [*LAYERS, *(f"{word}:" if word in ("from", "repeat") else word for word in WIRING)]


# --- bash -----------------------------------------------------------------------------------------------------------

BASH = r"""# @HEAD@
# Works without the bash-completion package, and leaves COMP_WORDBREAKS alone.

_convcalc() {
    local line=${COMP_LINE:0:COMP_POINT} verb=${COMP_WORDS[1]} cur before prev values='' word given
    # Bash splits words at : = and @, so the word is read off the line. What bash will replace is $2.
    cur=${line##*[[:space:]]}
    before=${line%"$cur"}
    before=${before%"${before##*[![:space:]]}"}
    prev=${before##*[[:space:]]}
    COMPREPLY=()
    if [[ $before != *[[:space:]]* ]]; then
        values='@VERBS@ help -h --help --version'
    elif [[ $verb == help ]]; then
        values='@TOPICS@'
    elif [[ $cur == -* ]]; then
        case $verb in
@OPTIONS@
        esac
    else
        case $prev in
@VALUES@
            @FILES@) _convcalc_files "$cur"; return ;;
            @OTHERS@) return ;;
            *)
                if [[ $cur == *:*@* || $cur == from:* ]]; then
                    read -r -a given <<<"$before"
                    for word in "${given[@]}"; do
                        [[ $word == @* ]] && values+=" ${cur%@*}$word"
                    done
                elif [[ $cur == *:*=* && ${cur##*,} == *=* ]]; then
                    word=${cur##*[,:]}
                    _convcalc_prefixed "${cur%"${word#*=}"}" "$(_convcalc_field_values "${word%%=*}")"
                elif [[ $cur == *:* ]]; then
                    word=${cur##*[,:]}
                    _convcalc_prefixed "${cur%"$word"}" "$(_convcalc_arguments "${cur%%:*}")"
                else
                    values='@WORDS@'
                    _convcalc_files "$cur"
                fi ;;
        esac
    fi
    local IFS=$' \t\n' found
    found=$(compgen -W "$values" -- "$cur")
    IFS=$'\n'
    for word in $found; do
        # Without the part of the word that bash keeps.
        COMPREPLY+=("${word#"${cur%"$2"}"}")
    done
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

# Every word of $2 behind $1, into values of the caller.
_convcalc_prefixed() {
    local word
    for word in $2; do
        values+=" $1$word"
    done
}

_convcalc_files() {
    local IFS=$'\n'
    COMPREPLY=($(compgen -f -- "$1"))
    [[ ${#COMPREPLY[@]} -gt 0 ]] && compopt -o filenames 2>/dev/null
}

_convcalc_arguments() {
    case $1 in
@ARGUMENTS@
    esac
}

_convcalc_field_values() {
    case $1 in
@FIELD_VALUES@
    esac
}

complete -F _convcalc convcalc
"""


def bash() -> str:
    """The file for bash."""
    every = options()
    lines = {
        "OPTIONS": [f"            {verb}) values='{' '.join(_flags(every[verb]))}' ;;" for verb in VERBS],
        "VALUES": [
            f"            {'|'.join(option.flags)}) values='{' '.join(option.values)}' ;;"
            for option in _distinct(every)
            if option.values
        ],
        "ARGUMENTS": [
            f"        {'|'.join(names)}) echo '{' '.join(words)}' ;;" for words, names in arguments().items()
        ],
        "FIELD_VALUES": [f"        {name}) echo '{' '.join(values)}' ;;" for name, values in field_values().items()],
    }
    text = BASH
    for name, content in lines.items():
        text = text.replace(f"@{name}@", "\n".join(content))
    files = [flag for option in _distinct(every) if option.files for flag in option.flags]
    others = [
        flag
        for option in _distinct(every)
        if option.takes_value and not option.values and not option.files
        for flag in option.flags
    ]
    for name, joined in (("FILES", "|".join(files)), ("OTHERS", "|".join(others))):
        text = text.replace(f"@{name}@", joined)
    return _common(text)


def _flags(found: list[Option]) -> list[str]:
    return [flag for option in found for flag in option.flags]


def _distinct(every: dict[str, list[Option]]) -> list[Option]:
    return list({option.key: option for found in every.values() for option in found}.values())


def _first_words() -> list[tuple[str, str]]:
    """What may come first, and a line about each."""
    return [*VERBS.items(), ("help", HELP_TEXT)]


def _common(text: str) -> str:
    text = text.replace("@TOPICS@", " ".join([*VERBS, "expressions", "kinds", *LAYERS]))
    return text.replace("@HEAD@", HEAD).replace("@VERBS@", " ".join(VERBS)).replace("@WORDS@", " ".join(words()))


# --- zsh ------------------------------------------------------------------------------------------------------------

ZSH = r"""#compdef convcalc
# @HEAD@

_convcalc() {
    local -a verbs specs
    if (( CURRENT == 2 )); then
        verbs=(
@VERB_LINES@
        )
        _describe -t verbs verb verbs
        _arguments '(-h --help)'{-h,--help}'[Show this message and exit]' '--version[Print the version and exit]'
        return
    fi
    case $words[2] in
        help) compadd -- @TOPICS@; return ;;
@SPECS@
    esac
    shift words
    (( CURRENT-- ))
    _arguments -S $specs '*:layer, file or -:_convcalc_word'
}

# A layer, wiring, a file: what a word that is no option can be.
_convcalc_word() {
    local kind=${PREFIX%%:*} field
    local -a given
    if [[ $PREFIX != *:* ]]; then
        _alternative 'layers:layer:(@WORDS_CLOSED@)' 'files:file:_files'
        compadd -S '' -- @WORDS_OPEN@
    elif [[ $PREFIX == *:*@* || $PREFIX == from:* ]]; then
        given=(${${(M)words:#@*}})
        compset -P '*[:,]'
        compadd -S '' -- $given
    else
        compset -P '*[:,]'
        if [[ $PREFIX == *=* ]]; then
            field=${PREFIX%%=*}
            compset -P '*='
            case $field in
@FIELD_VALUES@
            esac
        else
            case $kind in
@ARGUMENTS@
            esac
        fi
    fi
}

_convcalc "$@"
"""


def zsh() -> str:
    """The file for zsh."""
    every = options()
    specs = []
    for verb in VERBS:
        specs += [f"        {verb})", "            specs=("]
        specs += [f"                {_zsh_spec(option)}" for option in every[verb]]
        specs += ["            ) ;;"]
    closed = [word for word in words() if not word.endswith(":")]
    lines = {
        "VERB_LINES": [f"            {_quoted(verb + ':' + text.rstrip('.'))}" for verb, text in _first_words()],
        "SPECS": specs,
        "FIELD_VALUES": [
            f"                {name}) compadd -S '' -- {' '.join(values)} ;;" for name, values in field_values().items()
        ],
        "ARGUMENTS": [
            f"                {'|'.join(names)}) compadd -S '' -- {' '.join(words)} ;;"
            for words, names in arguments().items()
        ],
        "WORDS_CLOSED": [" ".join(closed)],
        "WORDS_OPEN": [" ".join(word for word in words() if word.endswith(":"))],
    }
    text = ZSH
    for name, content in lines.items():
        text = text.replace(f"@{name}@", "\n".join(content))
    return _common(text)


def _zsh_spec(option: Option) -> str:
    text = option.text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    value = ""
    if option.takes_value:
        action = f"({' '.join(option.values)})" if option.values else "_files" if option.files else " "
        value = f":{option.metavar}:{action}"
    if len(option.flags) == 1:
        return _quoted(f"{option.flags[0]}[{text}]{value}")
    return f"'({' '.join(option.flags)})'{{{','.join(option.flags)}}}{_quoted(f'[{text}]{value}')}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- fish -----------------------------------------------------------------------------------------------------------

FISH = r"""# @HEAD@

function __convcalc_verb --description 'Whether the verb is one of these'
    set -l given (commandline -opc)
    contains -- "$given[2]" $argv
end

function __convcalc_no_verb
    test (count (commandline -opc)) -eq 1
end

function __convcalc_words --description 'Layers, wiring, and what follows a colon, a comma, an = or an @'
    set -l word (commandline -ct)
    if not string match -q '*:*' -- $word
        printf '%s\n' @WORDS@
        return
    end
    if string match -qr '^from:|:.*@' -- $word
        set -l start (string replace -r '@[^@]*$' '' -- $word)
        for name in (string match -- '@*' (commandline -opc))
            echo $start$name
        end
        return
    end
    set -l start (string replace -r '[^:,]*$' '' -- $word)
    set -l last (string replace -r '^.*[:,]' '' -- $word)
    if string match -q '*=*' -- $last
        set -l field (string replace -r '=.*' '' -- $last)
        switch $field
@FIELD_VALUES@
        end
        return
    end
    switch (string replace -r ':.*' '' -- $word)
@ARGUMENTS@
    end
end

complete -c convcalc -n __convcalc_no_verb -f
complete -c convcalc -n __convcalc_no_verb -s h -l help -d 'Show this message and exit'
complete -c convcalc -n __convcalc_no_verb -l version -d 'Print the version and exit'
@VERB_LINES@
complete -c convcalc -n '__convcalc_verb help' -f -a '@TOPICS@'
complete -c convcalc -n 'not __convcalc_no_verb; and not __convcalc_verb help' -a '(__convcalc_words)'
@OPTION_LINES@
"""


def fish() -> str:
    """The file for fish."""
    every = options()
    lines = {
        "FIELD_VALUES": [
            f'            case {name}\n                printf "$start$field=%s\\n" {" ".join(values)}'
            for name, values in field_values().items()
        ],
        "ARGUMENTS": [
            f'        case {" ".join(names)}\n            printf "$start%s\\n" {" ".join(words)}'
            for words, names in arguments().items()
        ],
        "VERB_LINES": [
            f"complete -c convcalc -n __convcalc_no_verb -a {verb} -d {_fish_quoted(text.rstrip('.'))}"
            for verb, text in _first_words()
        ],
        "OPTION_LINES": [
            _fish_option(option, [verb for verb in VERBS if option.key in [other.key for other in every[verb]]])
            for option in _distinct(every)
        ],
    }
    text = FISH
    for name, content in lines.items():
        text = text.replace(f"@{name}@", "\n".join(content))
    return _common(text)


def _fish_option(option: Option, verbs: list[str]) -> str:
    line = f"complete -c convcalc -n '__convcalc_verb {' '.join(verbs)}'"
    for flag in option.flags:
        line += f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}"
    if option.values:
        line += f" -x -a '{' '.join(option.values)}'"
    elif option.takes_value:
        line += " -r -F" if option.files else " -x"
    return f"{line} -d {_fish_quoted(option.text)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def files() -> dict[str, str]:
    """The text of each file, by its name in completions/."""
    return {"convcalc.bash": bash(), "_convcalc": zsh(), "convcalc.fish": fish()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in files().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
