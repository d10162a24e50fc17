# convcalc's completions, made by scripts/make_completions.py: change that, not this.

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
        printf '%s\n' conv convt linear maxpool avgpool lppool adaptivemaxpool adaptiveavgpool globalavgpool globalmaxpool fractionalmaxpool maxunpool flatten unflatten reshape permute identity channelshuffle pixelshuffle pixelunshuffle unfold fold upsample upsamplingnearest upsamplingbilinear pad constantpad zeropad reflectionpad replicationpad circularpad crop batchnorm syncbatchnorm instancenorm groupnorm layernorm rmsnorm localresponsenorm dropout alphadropout featurealphadropout relu relu6 hardsigmoid hardswish selu silu mish sigmoid tanh logsigmoid softsign tanhshrink leakyrelu rrelu elu celu hardtanh threshold hardshrink softshrink softplus scale shift gelu prelu glu softmax softmin logsoftmax softmax2d lstm gru rnn multiheadattention embedding add mul concat matmul attention from: repeat: end
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
            case add_bias_kv
                printf "$start$field=%s\n" true false
            case add_zero_attn
                printf "$start$field=%s\n" true false
            case affine
                printf "$start$field=%s\n" true false
            case batch
                printf "$start$field=%s\n" true false
            case batch_first
                printf "$start$field=%s\n" true false
            case bias
                printf "$start$field=%s\n" true false
            case bidirectional
                printf "$start$field=%s\n" true false
            case causal
                printf "$start$field=%s\n" true false
            case ceil_mode
                printf "$start$field=%s\n" true false
            case count_include_pad
                printf "$start$field=%s\n" true false
            case elementwise_affine
                printf "$start$field=%s\n" true false
            case inplace
                printf "$start$field=%s\n" true false
            case masked
                printf "$start$field=%s\n" true false
            case padding_mode
                printf "$start$field=%s\n" zeros reflect replicate circular
            case return_indices
                printf "$start$field=%s\n" true false
            case scale_grad_by_freq
                printf "$start$field=%s\n" true false
            case sparse
                printf "$start$field=%s\n" true false
            case track_running_stats
                printf "$start$field=%s\n" true false
        end
        return
    end
    switch (string replace -r ':.*' '' -- $word)
        case conv lazyconv conv1d conv2d conv3d lazyconv1d lazyconv2d lazyconv3d Conv1d Conv2d Conv3d
            printf "$start%s\n" in_channels= out_channels= kernel_size= stride= padding= dilation= groups= bias= padding_mode= name= nobias depthwise psame psame_upper psame_lower pvalid pcausal pfull
        case convt lazyconvtranspose convt1d convt2d convt3d lazyconvtranspose1d lazyconvtranspose2d lazyconvtranspose3d convtranspose1d convtranspose2d convtranspose3d convtranspose ConvTranspose1d ConvTranspose2d ConvTranspose3d
            printf "$start%s\n" in_channels= out_channels= kernel_size= stride= padding= output_padding= groups= bias= dilation= padding_mode= output_size= name= nobias depthwise
        case linear lazylinear Linear
            printf "$start%s\n" in_features= out_features= bias= name= nobias
        case maxpool maxpool1d maxpool2d maxpool3d MaxPool1d MaxPool2d MaxPool3d
            printf "$start%s\n" kernel_size= stride= padding= dilation= return_indices= ceil_mode= name= ceil indices
        case avgpool avgpool1d avgpool2d avgpool3d AvgPool1d AvgPool2d AvgPool3d
            printf "$start%s\n" kernel_size= stride= padding= ceil_mode= count_include_pad= divisor_override= name= ceil nopad
        case lppool lppool1d lppool2d lppool3d LPPool1d LPPool2d LPPool3d
            printf "$start%s\n" norm_type= kernel_size= stride= ceil_mode= name= ceil
        case adaptivemaxpool adaptivemaxpool1d adaptivemaxpool2d adaptivemaxpool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d
            printf "$start%s\n" output_size= return_indices= name= indices
        case adaptiveavgpool adaptiveavgpool1d adaptiveavgpool2d adaptiveavgpool3d AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d
            printf "$start%s\n" output_size= name=
        case globalavgpool globalaveragepool gap GlobalAvgPool globalmaxpool GlobalMaxPool identity Identity crop Crop sigmoid Sigmoid tanh Tanh logsigmoid LogSigmoid softsign Softsign tanhshrink Tanhshrink softmax2d Softmax2d add Add mul Mul matmul MatMul
            printf "$start%s\n" name=
        case fractionalmaxpool fractionalmaxpool1d fractionalmaxpool2d fractionalmaxpool3d FractionalMaxPool1d FractionalMaxPool2d FractionalMaxPool3d
            printf "$start%s\n" kernel_size= output_size= output_ratio= return_indices= name= indices
        case maxunpool maxunpool1d maxunpool2d maxunpool3d MaxUnpool1d MaxUnpool2d MaxUnpool3d
            printf "$start%s\n" kernel_size= stride= padding= output_size= name=
        case flatten Flatten
            printf "$start%s\n" start_dim= end_dim= name=
        case unflatten Unflatten
            printf "$start%s\n" dim= unflattened_size= name=
        case reshape view Reshape
            printf "$start%s\n" shape= batch= name= batch
        case permute Permute
            printf "$start%s\n" dims= name=
        case channelshuffle ChannelShuffle
            printf "$start%s\n" groups= name=
        case pixelshuffle PixelShuffle
            printf "$start%s\n" upscale_factor= name=
        case pixelunshuffle PixelUnshuffle
            printf "$start%s\n" downscale_factor= name=
        case unfold im2col Unfold
            printf "$start%s\n" kernel_size= dilation= padding= stride= name=
        case fold col2im Fold
            printf "$start%s\n" output_size= kernel_size= dilation= padding= stride= name=
        case upsample Upsample
            printf "$start%s\n" size= scale_factor= mode= align_corners= recompute_scale_factor= name= bilinear bicubic trilinear area
        case upsamplingnearest upsamplingnearest2d UpsamplingNearest2d upsamplingbilinear upsamplingbilinear2d UpsamplingBilinear2d
            printf "$start%s\n" size= scale_factor= name=
        case pad pad1d pad2d pad3d Pad1d Pad2d Pad3d
            printf "$start%s\n" padding= mode= value= name= reflect replicate circular
        case constantpad constantpad1d constantpad2d constantpad3d ConstantPad1d ConstantPad2d ConstantPad3d
            printf "$start%s\n" padding= value= name=
        case zeropad zeropad1d zeropad2d zeropad3d ZeroPad1d ZeroPad2d ZeroPad3d reflectionpad reflectionpad1d reflectionpad2d reflectionpad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d replicationpad replicationpad1d replicationpad2d replicationpad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d circularpad circularpad1d circularpad2d circularpad3d CircularPad1d CircularPad2d CircularPad3d
            printf "$start%s\n" padding= name=
        case batchnorm bn lazybatchnorm batchnorm1d batchnorm2d batchnorm3d bn1d bn2d bn3d lazybatchnorm1d lazybatchnorm2d lazybatchnorm3d BatchNorm1d BatchNorm2d BatchNorm3d syncbatchnorm SyncBatchNorm instancenorm lazyinstancenorm instancenorm1d instancenorm2d instancenorm3d lazyinstancenorm1d lazyinstancenorm2d lazyinstancenorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d
            printf "$start%s\n" num_features= eps= momentum= affine= track_running_stats= bias= name= affine noaffine track notrack nobias
        case groupnorm gn GroupNorm
            printf "$start%s\n" num_groups= num_channels= eps= affine= bias= name= affine noaffine nobias
        case layernorm ln LayerNorm
            printf "$start%s\n" normalized_shape= eps= elementwise_affine= bias= name= noaffine nobias
        case rmsnorm RMSNorm
            printf "$start%s\n" normalized_shape= eps= elementwise_affine= name= noaffine
        case localresponsenorm lrn LocalResponseNorm
            printf "$start%s\n" size= alpha= beta= k= name=
        case dropout dropout1d dropout2d dropout3d Dropout1d Dropout2d Dropout3d alphadropout AlphaDropout featurealphadropout FeatureAlphaDropout
            printf "$start%s\n" p= inplace= name= inplace
        case relu ReLU relu6 ReLU6 hardsigmoid Hardsigmoid hardswish Hardswish selu SELU silu swish SiLU mish Mish
            printf "$start%s\n" inplace= name= inplace
        case leakyrelu LeakyReLU
            printf "$start%s\n" negative_slope= inplace= name= inplace
        case rrelu RReLU
            printf "$start%s\n" lower= upper= inplace= name= inplace
        case elu ELU celu CELU
            printf "$start%s\n" alpha= inplace= name= inplace
        case hardtanh Hardtanh
            printf "$start%s\n" min_val= max_val= inplace= name= inplace
        case threshold Threshold
            printf "$start%s\n" threshold= value= inplace= name= inplace
        case hardshrink Hardshrink softshrink Softshrink
            printf "$start%s\n" lambd= name=
        case softplus Softplus
            printf "$start%s\n" beta= threshold= name=
        case scale Scale
            printf "$start%s\n" factor= name=
        case shift Shift
            printf "$start%s\n" amount= name=
        case gelu GELU
            printf "$start%s\n" approximate= name= tanh
        case prelu PReLU
            printf "$start%s\n" num_parameters= init= name=
        case glu GLU softmax Softmax softmin Softmin logsoftmax LogSoftmax concat cat Concat
            printf "$start%s\n" dim= name=
        case lstm LSTM
            printf "$start%s\n" input_size= hidden_size= num_layers= bias= batch_first= dropout= bidirectional= proj_size= name= batch_first bidirectional nobias
        case gru GRU
            printf "$start%s\n" input_size= hidden_size= num_layers= bias= batch_first= dropout= bidirectional= name= batch_first bidirectional nobias
        case rnn RNN
            printf "$start%s\n" input_size= hidden_size= num_layers= bias= batch_first= dropout= bidirectional= nonlinearity= name= batch_first bidirectional nobias relu
        case multiheadattention mha MultiheadAttention
            printf "$start%s\n" embed_dim= num_heads= dropout= bias= add_bias_kv= add_zero_attn= kdim= vdim= batch_first= name= batch_first nobias
        case embedding Embedding
            printf "$start%s\n" num_embeddings= embedding_dim= padding_idx= max_norm= norm_type= scale_grad_by_freq= sparse= name=
        case attention Attention
            printf "$start%s\n" q_heads= kv_heads= past= masked= extra= given= causal= window= scale= softcap= stage= name= causal
    end
end

complete -c convcalc -n __convcalc_no_verb -f
complete -c convcalc -n __convcalc_no_verb -s h -l help -d 'Show this message and exit'
complete -c convcalc -n __convcalc_no_verb -l version -d 'Print the version and exit'
complete -c convcalc -n __convcalc_no_verb -a shape -d 'The output shape of each layer'
complete -c convcalc -n __convcalc_no_verb -a flops -d 'Parameters, MACs and exact FLOPs, forward and backward'
complete -c convcalc -n __convcalc_no_verb -a memory -d 'Bytes of inputs, outputs, weights; peaks; what training keeps'
complete -c convcalc -n __convcalc_no_verb -a summary -d 'All of it in one table, with shares of the whole'
complete -c convcalc -n __convcalc_no_verb -a compose -d 'A chain as one layer, and its weights merged'
complete -c convcalc -n __convcalc_no_verb -a run -d 'The numbers: layers on real arrays'
complete -c convcalc -n __convcalc_no_verb -a help -d 'The options of a verb, every kind of layer, or what one takes'
complete -c convcalc -n '__convcalc_verb help' -f -a 'shape flops memory summary compose run expressions kinds conv convt linear maxpool avgpool lppool adaptivemaxpool adaptiveavgpool globalavgpool globalmaxpool fractionalmaxpool maxunpool flatten unflatten reshape permute identity channelshuffle pixelshuffle pixelunshuffle unfold fold upsample upsamplingnearest upsamplingbilinear pad constantpad zeropad reflectionpad replicationpad circularpad crop batchnorm syncbatchnorm instancenorm groupnorm layernorm rmsnorm localresponsenorm dropout alphadropout featurealphadropout relu relu6 hardsigmoid hardswish selu silu mish sigmoid tanh logsigmoid softsign tanhshrink leakyrelu rrelu elu celu hardtanh threshold hardshrink softshrink softplus scale shift gelu prelu glu softmax softmin logsoftmax softmax2d lstm gru rnn multiheadattention embedding add mul concat matmul attention'
complete -c convcalc -n 'not __convcalc_no_verb; and not __convcalc_verb help' -a '(__convcalc_words)'
complete -c convcalc -n '__convcalc_verb shape flops compose' -l explain -d 'Print each formula, with and without the numbers'
complete -c convcalc -n '__convcalc_verb shape' -l receptive-field -d 'Add what each output reads of the input: field, jump, offset, tile overlap'
complete -c convcalc -n '__convcalc_verb shape' -l to -x -d 'Find the layers that give these sizes; what you give of one stays'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l kind -x -a 'conv convt linear maxpool avgpool lppool adaptivemaxpool adaptiveavgpool globalavgpool globalmaxpool fractionalmaxpool maxunpool flatten unflatten reshape permute identity channelshuffle pixelshuffle pixelunshuffle unfold fold upsample upsamplingnearest upsamplingbilinear pad constantpad zeropad reflectionpad replicationpad circularpad crop batchnorm syncbatchnorm instancenorm groupnorm layernorm rmsnorm localresponsenorm dropout alphadropout featurealphadropout relu relu6 hardsigmoid hardswish selu silu mish sigmoid tanh logsigmoid softsign tanhshrink leakyrelu rrelu elu celu hardtanh threshold hardshrink softshrink softplus scale shift gelu prelu glu softmax softmin logsoftmax softmax2d lstm gru rnn multiheadattention embedding add mul concat matmul attention' -d 'The kind of layer; conv if none is named'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -s k -l kernel-size -x -d 'Kernel: 3, or 3x5'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -s s -l stride -x -d 'Stride: 2, or 2x1'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -s p -l padding -x -d 'Padding: 1, 1x0, before+after 1+2, same, full, '
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -s d -l dilation -x -d 'Dilation: 2, or 2x1'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -s g -l groups -x -d 'Groups, or depthwise'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -s c -l channels -x -d 'Channels or features out; if none, as many as in'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l bias -d 'With a bias, or without'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l no-bias -d 'With a bias, or without'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l padding-mode -x -a 'zeros reflect replicate circular' -d 'zeros, reflect, replicate or circular'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l output-padding -x -d 'Extra size of a transposed convolution'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l output-size -x -d 'Size wanted of a transposed or adaptive layer'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l ceil-mode -d 'Let the last window of a pool stick out'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l input -x -d 'The input\'s shape, such as 3x224x224; of a model with several: NAME=SHAPE, each by its own --input'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose' -l batch -x -d 'Samples at once'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l assume-sequential -d 'For PyTorch\'s text: every container calls its modules in printed order'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l unprinted -x -d 'For PyTorch\'s text: what it leaves out, num_heads=8 or encoder.attn.num_heads=8'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l lines -d 'Answer each line of standard input as a question of its own, in JSON lines'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose' -l layer -x -d 'Show this layer alone, or this module; totals stay those of all'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose' -l sort -x -d 'Rows with the most of a column first, such as macs'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose' -l top -x -d 'So many rows alone, those with the most'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l format -x -a 'table plain tsv csv json jsonl markdown' -d 'table, plain, tsv, csv, json, jsonl or markdown'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -s q -l quiet -d 'Print the one value that a script wants'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -l get -x -d 'Print one value of the JSON document, such as totals.params'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose' -l max -x -d 'Fail when a total is larger: params=5M,macs=600M'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose' -l strict -d 'Fail when anything is unknown'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -s o -l output -r -F -d 'Write to this file, in the format of its suffix'
complete -c convcalc -n '__convcalc_verb shape flops memory summary compose run' -s h -l help -d 'Show this message and exit'
complete -c convcalc -n '__convcalc_verb flops' -l backward -d 'Add what each gradient costs'
complete -c convcalc -n '__convcalc_verb flops' -l input-grad -d 'With --backward: the network\'s input needs a gradient too'
complete -c convcalc -n '__convcalc_verb flops' -l convention -x -a 'exact macs 2mac torch fvcore thop ptflops' -d 'Count FLOPs as: exact, macs, 2mac, torch, fvcore, thop, ptflops'
complete -c convcalc -n '__convcalc_verb flops' -l samples -x -d 'For so many samples, such as 1M'
complete -c convcalc -n '__convcalc_verb flops' -l speed -x -d 'The time at so many FLOPs a second, such as 0.15T'
complete -c convcalc -n '__convcalc_verb flops' -l by -x -d 'A row for each: layer, kind or module'
complete -c convcalc -n '__convcalc_verb flops' -l depth -x -d 'With --by module: levels that are told apart; 1 if none'
complete -c convcalc -n '__convcalc_verb memory summary' -l dtype -x -a 'float64 double float32 float float16 half bfloat16 float8 int64 int32 int16 int8 uint8 bool' -d 'The type of every number'
complete -c convcalc -n '__convcalc_verb memory' -l train -d 'Add what autograd keeps, gradients and optimizer state'
complete -c convcalc -n '__convcalc_verb memory' -l optimizer -x -a 'sgd momentum adam adamw' -d 'With --train: sgd, momentum, adam or adamw; sgd if none'
complete -c convcalc -n '__convcalc_verb summary' -l depth -x -d 'Levels of modules that are told apart; all if none'
complete -c convcalc -n '__convcalc_verb summary' -l by -x -d 'What the share is of: macs, params or memory'
complete -c convcalc -n '__convcalc_verb compose' -s w -l weights -r -F -d 'Merge weights too: an .npz of all by name, 2.weight=ARRAY, or arrays in the layers\' order'
complete -c convcalc -n '__convcalc_verb compose' -l verify -d 'Run both on random numbers, and say where and how much they differ'
complete -c convcalc -n '__convcalc_verb compose' -l split -x -d 'Split a convolution: rank (column and row), two (smaller kernels), depthwise, or tucker'
complete -c convcalc -n '__convcalc_verb compose' -l rank -x -d 'With --split: the rank wanted'
complete -c convcalc -n '__convcalc_verb compose' -l error -x -d 'With --split: the largest error allowed, such as 0.1'
complete -c convcalc -n '__convcalc_verb compose' -l dtype -x -a 'float64 double float32 float float16 half bfloat16 float8 int64 int32 int16 int8 uint8 bool' -d 'Of the weights written: float64 (as computed), float32 or float16'
complete -c convcalc -n '__convcalc_verb compose' -l always -d 'For ONNX files: merge all that can be, not only what pays'
complete -c convcalc -n '__convcalc_verb compose' -l seed -x -d 'Of the random numbers of --verify'
complete -c convcalc -n '__convcalc_verb run' -s w -l weights -r -F -d 'The first layer\'s weight, an .npz of all by name, or 2.weight=ARRAY; random if none'
complete -c convcalc -n '__convcalc_verb run' -l bias-values -r -F -d 'The first layer\'s bias'
complete -c convcalc -n '__convcalc_verb run' -l seed -x -d 'Where random numbers start'
complete -c convcalc -n '__convcalc_verb run' -l flip -d 'True convolution: turn every kernel by 180 degrees'
complete -c convcalc -n '__convcalc_verb run' -l layer -x -d 'What this layer gives'
complete -c convcalc -n '__convcalc_verb run' -l indices -d 'What max pooling chose, too'
complete -c convcalc -n '__convcalc_verb run' -l as-matrix -d 'The matrix of these layers, if they are linear'
complete -c convcalc -n '__convcalc_verb run' -l im2col -d 'The windows of a convolution, one a row'
complete -c convcalc -n '__convcalc_verb run' -l check -r -F -d 'How far the output is from a saved one, or each layer\'s from another algorithm\'s'
complete -c convcalc -n '__convcalc_verb run' -l profile -d 'Each layer\'s time, speed, bytes and memory, measured here'
complete -c convcalc -n '__convcalc_verb run' -l max -x -d 'With --check or --profile: fail when a total is larger, such as scaled=1e-5'
complete -c convcalc -n '__convcalc_verb run' -l heatmap -d 'Draw a heat map, or a table; by size if neither'
complete -c convcalc -n '__convcalc_verb run' -l table -d 'Draw a heat map, or a table; by size if neither'
complete -c convcalc -n '__convcalc_verb run' -l fit -r -F -d 'Learn the weights that give this array'
complete -c convcalc -n '__convcalc_verb run' -l lr -x -d 'The rate; 0.03 if none'
complete -c convcalc -n '__convcalc_verb run' -l steps -x -d 'How many steps; 20 if none'
complete -c convcalc -n '__convcalc_verb run' -l optimizer -x -a 'sgd momentum adam adamw' -d 'sgd, momentum, adam or adamw; sgd if none'
complete -c convcalc -n '__convcalc_verb run' -l train -d 'Batch norms by the batch\'s statistics, dropouts at random; as at inference if not'
complete -c convcalc -n '__convcalc_verb run' -l algorithm -x -d 'Of convolutions: direct, pointwise, im2col, grouped, rows, kn2row, winograd2, winograd4, fft'
complete -c convcalc -n '__convcalc_verb run' -l dtype -x -a 'float64 double float32 float float16 half bfloat16 float8 int64 int32 int16 int8 uint8 bool' -d 'float32 or float64; the input\'s own type if none, float32 if it is random'
complete -c convcalc -n '__convcalc_verb run' -l threads -x -d 'Cores to use; all if none'
complete -c convcalc -n '__convcalc_verb run' -l batch -x -d 'The input\'s first axis are samples: so many at once. A folder has one at once if none'
complete -c convcalc -n '__convcalc_verb run' -l resume -d 'With --batch and -o FILE.npy: go on where a run was interrupted'
complete -c convcalc -n '__convcalc_verb run' -l resize -x -d 'The shorter side 256, or 224x224; 256,bicubic mixes pixels so'
complete -c convcalc -n '__convcalc_verb run' -l crop -x -d 'Cut 224 or 224x160 out of the middle'
complete -c convcalc -n '__convcalc_verb run' -l normalize -x -d 'imagenet, clip, half, mnist, or means/deviations 0.5,0.5,0.5/0.2,0.2,0.2'
