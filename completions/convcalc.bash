# convcalc's completions, made by scripts/make_completions.py: change that, not this.
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
        values='shape flops memory summary compose run help -h --help --version'
    elif [[ $verb == help ]]; then
        values='shape flops memory summary compose run expressions kinds conv convt linear maxpool avgpool lppool adaptivemaxpool adaptiveavgpool globalavgpool globalmaxpool fractionalmaxpool maxunpool flatten unflatten reshape permute identity channelshuffle pixelshuffle pixelunshuffle unfold fold upsample upsamplingnearest upsamplingbilinear pad constantpad zeropad reflectionpad replicationpad circularpad crop batchnorm syncbatchnorm instancenorm groupnorm layernorm rmsnorm localresponsenorm dropout alphadropout featurealphadropout relu relu6 hardsigmoid hardswish selu silu mish sigmoid tanh logsigmoid softsign tanhshrink leakyrelu rrelu elu celu hardtanh threshold hardshrink softshrink softplus scale shift gelu prelu glu softmax softmin logsoftmax softmax2d lstm gru rnn multiheadattention embedding add mul concat matmul attention'
    elif [[ $cur == -* ]]; then
        case $verb in
            shape) values='--explain --receptive-field --to --kind -k --kernel-size -s --stride -p --padding -d --dilation -g --groups -c --channels --bias --no-bias --padding-mode --output-padding --output-size --ceil-mode --input --batch --assume-sequential --unprinted --lines --layer --sort --top --format -q --quiet --get --max --strict -o --output -h --help' ;;
            flops) values='--explain --backward --input-grad --convention --samples --speed --by --depth --kind -k --kernel-size -s --stride -p --padding -d --dilation -g --groups -c --channels --bias --no-bias --padding-mode --output-padding --output-size --ceil-mode --input --batch --assume-sequential --unprinted --lines --layer --sort --top --format -q --quiet --get --max --strict -o --output -h --help' ;;
            memory) values='--dtype --train --optimizer --kind -k --kernel-size -s --stride -p --padding -d --dilation -g --groups -c --channels --bias --no-bias --padding-mode --output-padding --output-size --ceil-mode --input --batch --assume-sequential --unprinted --lines --layer --sort --top --format -q --quiet --get --max --strict -o --output -h --help' ;;
            summary) values='--depth --by --dtype --kind -k --kernel-size -s --stride -p --padding -d --dilation -g --groups -c --channels --bias --no-bias --padding-mode --output-padding --output-size --ceil-mode --input --batch --assume-sequential --unprinted --lines --layer --sort --top --format -q --quiet --get --max --strict -o --output -h --help' ;;
            compose) values='--explain -w --weights --verify --split --rank --error --dtype --always --seed --kind -k --kernel-size -s --stride -p --padding -d --dilation -g --groups -c --channels --bias --no-bias --padding-mode --output-padding --output-size --ceil-mode --input --batch --assume-sequential --unprinted --lines --layer --sort --top --format -q --quiet --get --max --strict -o --output -h --help' ;;
            run) values='-w --weights --bias-values --seed --flip --layer --indices --as-matrix --im2col --check --profile --max --heatmap --table --fit --lr --steps --optimizer --train --algorithm --dtype --threads --batch --resume --resize --crop --normalize --kind -k --kernel-size -s --stride -p --padding -d --dilation -g --groups -c --channels --bias --no-bias --padding-mode --output-padding --output-size --ceil-mode --input --assume-sequential --unprinted --lines --format -q --quiet --get -o --output -h --help' ;;
        esac
    else
        case $prev in
            --kind) values='conv convt linear maxpool avgpool lppool adaptivemaxpool adaptiveavgpool globalavgpool globalmaxpool fractionalmaxpool maxunpool flatten unflatten reshape permute identity channelshuffle pixelshuffle pixelunshuffle unfold fold upsample upsamplingnearest upsamplingbilinear pad constantpad zeropad reflectionpad replicationpad circularpad crop batchnorm syncbatchnorm instancenorm groupnorm layernorm rmsnorm localresponsenorm dropout alphadropout featurealphadropout relu relu6 hardsigmoid hardswish selu silu mish sigmoid tanh logsigmoid softsign tanhshrink leakyrelu rrelu elu celu hardtanh threshold hardshrink softshrink softplus scale shift gelu prelu glu softmax softmin logsoftmax softmax2d lstm gru rnn multiheadattention embedding add mul concat matmul attention' ;;
            --padding-mode) values='zeros reflect replicate circular' ;;
            --format) values='table plain tsv csv json jsonl markdown' ;;
            --convention) values='exact macs 2mac torch fvcore thop ptflops' ;;
            --dtype) values='float64 double float32 float float16 half bfloat16 float8 int64 int32 int16 int8 uint8 bool' ;;
            --optimizer) values='sgd momentum adam adamw' ;;
            --dtype) values='float64 double float32 float float16 half bfloat16 float8 int64 int32 int16 int8 uint8 bool' ;;
            --optimizer) values='sgd momentum adam adamw' ;;
            --dtype) values='float64 double float32 float float16 half bfloat16 float8 int64 int32 int16 int8 uint8 bool' ;;
            -o|--output|-w|--weights|-w|--weights|--bias-values|--check|--fit) _convcalc_files "$cur"; return ;;
            --to|-k|--kernel-size|-s|--stride|-p|--padding|-d|--dilation|-g|--groups|-c|--channels|--output-padding|--output-size|--input|--batch|--unprinted|--layer|--sort|--top|--get|--max|--samples|--speed|--by|--depth|--depth|--by|--split|--rank|--error|--seed|--seed|--layer|--max|--lr|--steps|--algorithm|--threads|--batch|--resize|--crop|--normalize) return ;;
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
                    values='conv convt linear maxpool avgpool lppool adaptivemaxpool adaptiveavgpool globalavgpool globalmaxpool fractionalmaxpool maxunpool flatten unflatten reshape permute identity channelshuffle pixelshuffle pixelunshuffle unfold fold upsample upsamplingnearest upsamplingbilinear pad constantpad zeropad reflectionpad replicationpad circularpad crop batchnorm syncbatchnorm instancenorm groupnorm layernorm rmsnorm localresponsenorm dropout alphadropout featurealphadropout relu relu6 hardsigmoid hardswish selu silu mish sigmoid tanh logsigmoid softsign tanhshrink leakyrelu rrelu elu celu hardtanh threshold hardshrink softshrink softplus scale shift gelu prelu glu softmax softmin logsoftmax softmax2d lstm gru rnn multiheadattention embedding add mul concat matmul attention from: repeat: end'
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
        conv|lazyconv|conv1d|conv2d|conv3d|lazyconv1d|lazyconv2d|lazyconv3d|Conv1d|Conv2d|Conv3d) echo 'in_channels= out_channels= kernel_size= stride= padding= dilation= groups= bias= padding_mode= name= nobias depthwise psame psame_upper psame_lower pvalid pcausal pfull' ;;
        convt|lazyconvtranspose|convt1d|convt2d|convt3d|lazyconvtranspose1d|lazyconvtranspose2d|lazyconvtranspose3d|convtranspose1d|convtranspose2d|convtranspose3d|convtranspose|ConvTranspose1d|ConvTranspose2d|ConvTranspose3d) echo 'in_channels= out_channels= kernel_size= stride= padding= output_padding= groups= bias= dilation= padding_mode= output_size= name= nobias depthwise' ;;
        linear|lazylinear|Linear) echo 'in_features= out_features= bias= name= nobias' ;;
        maxpool|maxpool1d|maxpool2d|maxpool3d|MaxPool1d|MaxPool2d|MaxPool3d) echo 'kernel_size= stride= padding= dilation= return_indices= ceil_mode= name= ceil indices' ;;
        avgpool|avgpool1d|avgpool2d|avgpool3d|AvgPool1d|AvgPool2d|AvgPool3d) echo 'kernel_size= stride= padding= ceil_mode= count_include_pad= divisor_override= name= ceil nopad' ;;
        lppool|lppool1d|lppool2d|lppool3d|LPPool1d|LPPool2d|LPPool3d) echo 'norm_type= kernel_size= stride= ceil_mode= name= ceil' ;;
        adaptivemaxpool|adaptivemaxpool1d|adaptivemaxpool2d|adaptivemaxpool3d|AdaptiveMaxPool1d|AdaptiveMaxPool2d|AdaptiveMaxPool3d) echo 'output_size= return_indices= name= indices' ;;
        adaptiveavgpool|adaptiveavgpool1d|adaptiveavgpool2d|adaptiveavgpool3d|AdaptiveAvgPool1d|AdaptiveAvgPool2d|AdaptiveAvgPool3d) echo 'output_size= name=' ;;
        globalavgpool|globalaveragepool|gap|GlobalAvgPool|globalmaxpool|GlobalMaxPool|identity|Identity|crop|Crop|sigmoid|Sigmoid|tanh|Tanh|logsigmoid|LogSigmoid|softsign|Softsign|tanhshrink|Tanhshrink|softmax2d|Softmax2d|add|Add|mul|Mul|matmul|MatMul) echo 'name=' ;;
        fractionalmaxpool|fractionalmaxpool1d|fractionalmaxpool2d|fractionalmaxpool3d|FractionalMaxPool1d|FractionalMaxPool2d|FractionalMaxPool3d) echo 'kernel_size= output_size= output_ratio= return_indices= name= indices' ;;
        maxunpool|maxunpool1d|maxunpool2d|maxunpool3d|MaxUnpool1d|MaxUnpool2d|MaxUnpool3d) echo 'kernel_size= stride= padding= output_size= name=' ;;
        flatten|Flatten) echo 'start_dim= end_dim= name=' ;;
        unflatten|Unflatten) echo 'dim= unflattened_size= name=' ;;
        reshape|view|Reshape) echo 'shape= batch= name= batch' ;;
        permute|Permute) echo 'dims= name=' ;;
        channelshuffle|ChannelShuffle) echo 'groups= name=' ;;
        pixelshuffle|PixelShuffle) echo 'upscale_factor= name=' ;;
        pixelunshuffle|PixelUnshuffle) echo 'downscale_factor= name=' ;;
        unfold|im2col|Unfold) echo 'kernel_size= dilation= padding= stride= name=' ;;
        fold|col2im|Fold) echo 'output_size= kernel_size= dilation= padding= stride= name=' ;;
        upsample|Upsample) echo 'size= scale_factor= mode= align_corners= recompute_scale_factor= name= bilinear bicubic trilinear area' ;;
        upsamplingnearest|upsamplingnearest2d|UpsamplingNearest2d|upsamplingbilinear|upsamplingbilinear2d|UpsamplingBilinear2d) echo 'size= scale_factor= name=' ;;
        pad|pad1d|pad2d|pad3d|Pad1d|Pad2d|Pad3d) echo 'padding= mode= value= name= reflect replicate circular' ;;
        constantpad|constantpad1d|constantpad2d|constantpad3d|ConstantPad1d|ConstantPad2d|ConstantPad3d) echo 'padding= value= name=' ;;
        zeropad|zeropad1d|zeropad2d|zeropad3d|ZeroPad1d|ZeroPad2d|ZeroPad3d|reflectionpad|reflectionpad1d|reflectionpad2d|reflectionpad3d|ReflectionPad1d|ReflectionPad2d|ReflectionPad3d|replicationpad|replicationpad1d|replicationpad2d|replicationpad3d|ReplicationPad1d|ReplicationPad2d|ReplicationPad3d|circularpad|circularpad1d|circularpad2d|circularpad3d|CircularPad1d|CircularPad2d|CircularPad3d) echo 'padding= name=' ;;
        batchnorm|bn|lazybatchnorm|batchnorm1d|batchnorm2d|batchnorm3d|bn1d|bn2d|bn3d|lazybatchnorm1d|lazybatchnorm2d|lazybatchnorm3d|BatchNorm1d|BatchNorm2d|BatchNorm3d|syncbatchnorm|SyncBatchNorm|instancenorm|lazyinstancenorm|instancenorm1d|instancenorm2d|instancenorm3d|lazyinstancenorm1d|lazyinstancenorm2d|lazyinstancenorm3d|InstanceNorm1d|InstanceNorm2d|InstanceNorm3d) echo 'num_features= eps= momentum= affine= track_running_stats= bias= name= affine noaffine track notrack nobias' ;;
        groupnorm|gn|GroupNorm) echo 'num_groups= num_channels= eps= affine= bias= name= affine noaffine nobias' ;;
        layernorm|ln|LayerNorm) echo 'normalized_shape= eps= elementwise_affine= bias= name= noaffine nobias' ;;
        rmsnorm|RMSNorm) echo 'normalized_shape= eps= elementwise_affine= name= noaffine' ;;
        localresponsenorm|lrn|LocalResponseNorm) echo 'size= alpha= beta= k= name=' ;;
        dropout|dropout1d|dropout2d|dropout3d|Dropout1d|Dropout2d|Dropout3d|alphadropout|AlphaDropout|featurealphadropout|FeatureAlphaDropout) echo 'p= inplace= name= inplace' ;;
        relu|ReLU|relu6|ReLU6|hardsigmoid|Hardsigmoid|hardswish|Hardswish|selu|SELU|silu|swish|SiLU|mish|Mish) echo 'inplace= name= inplace' ;;
        leakyrelu|LeakyReLU) echo 'negative_slope= inplace= name= inplace' ;;
        rrelu|RReLU) echo 'lower= upper= inplace= name= inplace' ;;
        elu|ELU|celu|CELU) echo 'alpha= inplace= name= inplace' ;;
        hardtanh|Hardtanh) echo 'min_val= max_val= inplace= name= inplace' ;;
        threshold|Threshold) echo 'threshold= value= inplace= name= inplace' ;;
        hardshrink|Hardshrink|softshrink|Softshrink) echo 'lambd= name=' ;;
        softplus|Softplus) echo 'beta= threshold= name=' ;;
        scale|Scale) echo 'factor= name=' ;;
        shift|Shift) echo 'amount= name=' ;;
        gelu|GELU) echo 'approximate= name= tanh' ;;
        prelu|PReLU) echo 'num_parameters= init= name=' ;;
        glu|GLU|softmax|Softmax|softmin|Softmin|logsoftmax|LogSoftmax|concat|cat|Concat) echo 'dim= name=' ;;
        lstm|LSTM) echo 'input_size= hidden_size= num_layers= bias= batch_first= dropout= bidirectional= proj_size= name= batch_first bidirectional nobias' ;;
        gru|GRU) echo 'input_size= hidden_size= num_layers= bias= batch_first= dropout= bidirectional= name= batch_first bidirectional nobias' ;;
        rnn|RNN) echo 'input_size= hidden_size= num_layers= bias= batch_first= dropout= bidirectional= nonlinearity= name= batch_first bidirectional nobias relu' ;;
        multiheadattention|mha|MultiheadAttention) echo 'embed_dim= num_heads= dropout= bias= add_bias_kv= add_zero_attn= kdim= vdim= batch_first= name= batch_first nobias' ;;
        embedding|Embedding) echo 'num_embeddings= embedding_dim= padding_idx= max_norm= norm_type= scale_grad_by_freq= sparse= name=' ;;
        attention|Attention) echo 'q_heads= kv_heads= past= masked= extra= given= causal= window= scale= softcap= stage= name= causal' ;;
    esac
}

_convcalc_field_values() {
    case $1 in
        add_bias_kv) echo 'true false' ;;
        add_zero_attn) echo 'true false' ;;
        affine) echo 'true false' ;;
        batch) echo 'true false' ;;
        batch_first) echo 'true false' ;;
        bias) echo 'true false' ;;
        bidirectional) echo 'true false' ;;
        causal) echo 'true false' ;;
        ceil_mode) echo 'true false' ;;
        count_include_pad) echo 'true false' ;;
        elementwise_affine) echo 'true false' ;;
        inplace) echo 'true false' ;;
        masked) echo 'true false' ;;
        padding_mode) echo 'zeros reflect replicate circular' ;;
        return_indices) echo 'true false' ;;
        scale_grad_by_freq) echo 'true false' ;;
        sparse) echo 'true false' ;;
        track_running_stats) echo 'true false' ;;
    esac
}

complete -F _convcalc convcalc
