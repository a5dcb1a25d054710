#!/usr/bin/env bash
# Uses the packages as a user's program does: a new project outside the repository, a local feed, the README's code.
#   tests/consumer/run.sh [artifacts/packages]
# Prints "ok NAME" or "FAILED NAME" for each check. Needs the .NET SDK, and a C compiler for the program compiled ahead of time.
# On linux-x64, engines of other platforms in the feed run under qemu-user and Wine, if these are installed.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
feed=$(cd "${1:-$root/artifacts/packages}" && pwd)
work=$(mktemp -d)
export WINEPREFIX=$work/wine WINEDEBUG=-all
finish() {
    [ ! -d "$WINEPREFIX" ] || wineserver -k
    rm -rf "$work"
}
trap finish EXIT
export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_CLI_UI_LANGUAGE=en
version=$(basename "$feed"/LlamaKivi.Native.*.nupkg .nupkg)
version=${version#LlamaKivi.Native.}
rid=linux-$([ "$(uname -m)" = aarch64 ] && echo arm64 || echo x64)
failed=0

# The packages under test come only from the feed, through a new cache. Other packages may come from the user's cache.
export NUGET_FALLBACK_PACKAGES=${NUGET_PACKAGES:-$HOME/.nuget/packages}
export NUGET_PACKAGES=$work/cache
mkdir "$NUGET_PACKAGES"
if ls -d "$NUGET_FALLBACK_PACKAGES"/llamakivi* 2>/dev/null; then
    echo "remove these folders: they hold packages that would be used instead of the feed's" >&2
    exit 1
fi
cat > "$work/nuget.config" <<END
<configuration><packageSources><add key="packages under test" value="$feed" /></packageSources></configuration>
END

# check NAME COMMAND...: runs the command and prints its output only if it fails.
check() {
    local name=$1 start=$SECONDS
    shift
    if "$@" > "$work/log" 2>&1; then
        echo "ok $name ($((SECONDS - start)) s)"
    else
        cat "$work/log"
        echo "FAILED $name"
        failed=1
    fi
}

# prints_text COMMAND...: the command succeeds and continues the prompt.
prints_text() {
    "$@" > "$work/text" && cat "$work/text" && [ "$(wc -w < "$work/text")" -gt 10 ]
}

new_project() {
    cd "$work" && dotnet new console -o app && cd app &&
        sed -n '/^```csharp$/,/^```$/p' "$root/README.md" | sed '/^```/d' > Program.cs &&
        [ "$(wc -l < Program.cs)" -ge 10 ] &&
        dotnet add package LlamaKivi --version "$version" && dotnet add package LlamaKivi.DemoModel --version "$version"
}

# fails_with TEXT COMMAND...: the command fails and its error has the text.
fails_with() {
    local text=$1
    shift
    "$@" 2> "$work/error" && return 1
    cat "$work/error" && grep -qF "$text" "$work/error"
}

names_the_missing_package() {
    cd "$work/app" && dotnet build -c Release && cd bin/Release/net10.0 && fails_with 'dotnet add package LlamaKivi.Backend.Cpu' ./app
}

# Values of LLAMA_KIVI_NATIVE_DIR that are refused: a missing folder, the path of a library, a folder with a library of another
# program, and one with a library for another processor.
refuses_wrong_libraries() {
    local folder=$work/app/bin/Release/net10.0 machine='\xB7'
    [ "$rid" = linux-x64 ] || machine='\x3E'
    mkdir "$work/other" "$work/machine" && echo 'int other(void) { return 0; }' | cc -shared -xc -o "$work/other/libllama-kivi.so" - &&
        cp "$work/other/libllama-kivi.so" "$work/machine/" && printf "$machine" | dd of="$work/machine/libllama-kivi.so" bs=1 seek=18 conv=notrunc status=none &&
        cd "$folder" || return
    with_folder() {
        LLAMA_KIVI_NATIVE_DIR=$1 ./app
    }
    fails_with 'LLAMA_KIVI_NATIVE_DIR is set to /no/such/folder, so no other folder is tried' with_folder /no/such/folder &&
        fails_with 'it names a file, not a folder' with_folder "$(find "$folder" -path "*$rid*" -name 'libllama-kivi.so')" &&
        fails_with "is not LlamaKivi's engine" with_folder "$work/other" &&
        fails_with 'it is built for linux-' with_folder "$work/machine"
}

runs_the_readme() {
    cd "$work/app" && dotnet add package LlamaKivi.Backend.Cpu --version "$version" && dotnet build -c Release &&
        prints_text dotnet run -c Release --no-build
}

# The program finds engine and model beside its own file.
runs_from_another_folder_through_a_link() {
    mkdir "$work/elsewhere" && ln -s "$work/app/bin/Release/net10.0/app" "$work/elsewhere/link" && cd "$work/elsewhere" && prints_text ./link
}

# publish NAME PROPERTY...: publishes the program, runs it and prints its size. Warnings of the trimmer are errors.
publish() {
    local name=$1
    shift
    cd "$work/app" && dotnet publish -c Release -r "$rid" -o "$work/$name" -warnaserror "$@" && cd "$work/$name" && prints_text ./app
}

# has_engine RID: whether the feed has the engine for a platform. Names in a zip file are not compressed.
has_engine() {
    grep -aq "runtimes/$1/native/" "$feed"/LlamaKivi.Backend.Cpu.[0-9]*.nupkg
}

# cross RID PROGRAM EMULATOR...: publishes the program with the .NET runtime for another platform and runs it there, where no ICU is installed.
cross() {
    local rid=$1 program=$2
    shift 2
    cd "$work/app" && dotnet publish -c Release -r "$rid" --self-contained -o "$work/$rid" -warnaserror -p:InvariantGlobalization=true && cd "$work/$rid" && prints_text "$@" "./$program"
}

# The plugin's package brings the engine's, and both may be named. The engine finds the plugin, which reports what it lacks.
loads_the_plugin() {
    cd "$work" && mkdir gpu && cp app/app.csproj app/Program.cs gpu/ && cd gpu &&
        sed -i 's/ContextSize = 4096/ContextSize = 4096, GpuLayerCount = 99, RequireGpu = true/' Program.cs &&
        dotnet add package LlamaKivi.Backend.Cuda.Linux --version "$version" && dotnet build -c Release &&
        dotnet remove package LlamaKivi.Backend.Cpu && dotnet publish -c Release -r "$rid" --self-contained -o "$work/gpu/out" && cd out || return
    ls -l libllama-kivi.so libllama-kivi-cuda.so || return
    if ./app > "$work/text" 2> "$work/error"; then
        echo "a GPU was used" && [ "$(wc -w < "$work/text")" -gt 10 ]
    else
        cat "$work/error" && grep -q 'the GPU cannot be used' "$work/error" && ! grep -q 'libllama-kivi-cuda.so was not loaded' "$work/error"
    fi
}

# The JSON of a schema's type: reflection that trimming breaks would show.
publishes_structured_output_ahead_of_time() {
    cd "$work/app" && cp "$root/samples/StructuredOutput/"*.cs . && dotnet publish -c Release -r "$rid" -o "$work/ahead" -warnaserror -p:PublishAot=true -p:InvariantGlobalization=true &&
        cd "$work/ahead" && ./app models/kivi-demo-llama-37m-q4_k_m.gguf | tee "$work/text" && [ "$(grep -cE '^(name|year|topics): ' "$work/text")" -eq 3 ]
}

tool() {
    "$work/tools/llama-kivi" "$@"
}

installs_the_tool() {
    cd "$work" && dotnet tool install LlamaKivi.Cli --version "$version" --tool-path "$work/tools" &&
        tool doctor | tee "$work/text" && grep -q '^CPU ' "$work/text"
}

# The demo model is in the package cache, where its package was restored.
tool_runs() {
    cd / && prints_text tool run -p 'The garbage collector' -n 16 -ngl 0
}

tool_chats() {
    cd / && printf 'Hello\n/stats\n/exit\n' | tool chat -n 8 -ngl 0 > "$work/text" && cat "$work/text" && [ -s "$work/text" ]
}

check "new project" new_project
check "a missing backend names its package" names_the_missing_package
check "the README's program" runs_the_readme
check "wrong libraries are refused by name" refuses_wrong_libraries
check "from another folder, through a link" runs_from_another_folder_through_a_link
check "self-contained, single file" publish single --self-contained -p:PublishSingleFile=true
check "self-contained, trimmed" publish trimmed --self-contained -p:PublishTrimmed=true
if [ "$rid" = linux-x64 ]; then
    if has_engine linux-arm64 && command -v qemu-aarch64 >/dev/null && [ -d /usr/aarch64-linux-gnu/lib ]; then
        check "linux-arm64, under qemu-user" cross linux-arm64 app qemu-aarch64 -L /usr/aarch64-linux-gnu
    fi
    if has_engine win-x64 && command -v wine >/dev/null; then
        check "win-x64, under Wine" cross win-x64 app.exe wine
    fi
    if [ -e "$feed/LlamaKivi.Backend.Cuda.Linux.$version.nupkg" ]; then
        check "the CUDA plugin" loads_the_plugin
    fi
fi
check "compiled ahead of time" publishes_structured_output_ahead_of_time
check "the tool, installed" installs_the_tool
check "the tool's run" tool_runs
check "the tool's chat" tool_chats
du -sm --apparent-size "$work"/{single,trimmed,ahead} 2>/dev/null | sed "s|$work/|size of |"
exit "$failed"
